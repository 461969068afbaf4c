"""What was judged on what, and the whole of it as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serving.classifier.proba import FloatArray
from training.evaluation.evaluation import ROUTER, Evaluation
from training.evaluation.intervals import Estimate

_RANKING = ("apgr", "cpt50", "cpt80")


@dataclass(frozen=True)
class Subject:
    """What was judged on what.

    router: version and digest. tiers: names of the ladder, lowest first. models: those of each tier. seen: prompts
    left out because the router was made from them; similar: others that are versions of one it was fitted on; None
    when it does not remember. refused: targets without a threshold, judged at μ = 0. looks: how often these outcomes
    were evaluated on, this time included.
    """

    router: str
    outcomes: str
    outcomes_digest: str
    split: str | None
    tiers: Sequence[str]
    models: Mapping[str, Sequence[str]]
    seen: int | None
    similar: int | None
    refused: Sequence[float]
    looks: int


def report_json(evaluation: Evaluation, subject: Subject) -> dict[str, object]:
    """One object: the figures, each beside its `…_interval`; every name is defined in docs/metrics.md."""
    ranking = {name: _flat(figures) for name, figures in evaluation.ranking.items()}
    costs = {
        name: {f"{quality:g}": _known(_flat(figures), evaluation) for quality, figures in found.items()}
        for name, found in evaluation.cost.items()
    }
    router: dict[str, object] = dict.fromkeys(name + end for name in _RANKING for end in ("", "_interval"))
    router |= {key: value for key, value in ranking.get(ROUTER, {}).items() if not key.startswith("behind")}
    slices: dict[str, dict[str, object]] = {}
    for part in evaluation.slices:
        slices.setdefault(part.kind, {})[part.name] = {"n": part.n, **_known(_flat(part.figures), evaluation)}
    curve = evaluation.curve
    return {
        "router": subject.router,
        "outcomes": subject.outcomes,
        "outcomes_digest": subject.outcomes_digest,
        "split": subject.split,
        "looks": subject.looks,
        "n": evaluation.n,
        "n_labelled": evaluation.n_labelled,
        "groups": evaluation.groups,
        "seen_in_training": subject.seen,
        "similar_to_training": subject.similar,
        "models": {name: list(models) for name, models in subject.models.items()},
        "alone": {name: _known(_flat(figures), evaluation) for name, figures in evaluation.alone.items()},
        **router,
        "cost_at_quality": costs.get(ROUTER, {}),
        "costs": evaluation.costs,
        "targets": {
            f"{target:g}": {"refused": target in subject.refused, **_known(_flat(figures), evaluation)}
            for target, figures in evaluation.targets.items()
        },
        "tiers": {name: _flat(figures) for name, figures in evaluation.tiers.items()},
        "baselines": {
            name: {**ranking[name], "n": evaluation.n, "cost_at_quality": costs[name]}
            for name in ranking
            if name != ROUTER
        },
        "baselines_missing": dict(evaluation.missing),
        "slices": slices,
        "curve": curve
        and {
            "quality": _numbers(curve.quality),
            "relative_cost": _numbers(curve.cost) if evaluation.costs != "unknown" else None,
            "share": {name: _numbers(curve.share[:, i]) for i, name in enumerate(subject.tiers)},
        },
    }


def _flat(figures: Mapping[str, Estimate | int]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in figures.items():
        if isinstance(value, Estimate):
            found[name] = value.value
            found[f"{name}_interval"] = None if value.interval is None else list(value.interval)
        else:
            found[name] = value
    return found


def _known(figures: dict[str, object], evaluation: Evaluation) -> dict[str, object]:
    """Without prices there is no cost, only the share of calls that go to the top tier."""
    unknown = ("relative_cost", "relative_cost_interval") if evaluation.costs == "unknown" else ()
    return figures | dict.fromkeys(unknown)


def _numbers(values: FloatArray) -> list[float | None]:
    return [round(float(value), 5) if np.isfinite(value) else None for value in values]
