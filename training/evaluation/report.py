"""How an evaluation is told: as JSON, and as text for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serving.classifier.heads import FloatArray
from training.evaluation.evaluation import ROUTER, Evaluation, Slice
from training.evaluation.intervals import Estimate
from training.text_table import text_table

_RANKING = ("apgr", "cpt50", "cpt80")


@dataclass(frozen=True)
class Subject:
    """What was judged on what.

    router: version and digest. tiers: names of the ladder, lowest first. models: those of each tier. seen: prompts
    left out because the router was made from them; similar: others that are versions of one it was fitted on; None
    when it does not remember. looks: how often these outcomes were evaluated on, this time included.
    """

    router: str
    outcomes: str
    outcomes_digest: str
    split: str | None
    tiers: Sequence[str]
    models: Mapping[str, Sequence[str]]
    seen: int | None
    similar: int | None
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
            f"{target:g}": _known(_flat(figures), evaluation) for target, figures in evaluation.targets.items()
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


def report_text(evaluation: Evaluation, subject: Subject) -> str:
    """The figures as tables; slices are the eight on which the router ranks worst."""
    return "\n".join(_lines(evaluation, subject))


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


def _lines(evaluation: Evaluation, subject: Subject) -> Iterator[str]:
    split = f", split {subject.split}" if subject.split else ""
    yield f"router {subject.router} on {subject.outcomes}{split}, outcomes {subject.outcomes_digest[:12]}"
    yield (
        f"{evaluation.n:,} prompts with evidence for every tier in {evaluation.groups:,} groups, "
        f"{evaluation.n_labelled:,} labelled; {_seen(subject)}; look {subject.looks} at these outcomes"
    )
    for name, figures in evaluation.alone.items():
        yield f"{name} for all: quality {_shown(figures['quality'])} ({', '.join(subject.models[name])})"
    if evaluation.n:
        yield ""
        yield from _candidates(evaluation)
    for name, reason in evaluation.missing.items():
        yield f"no {name}: {reason}"
    yield ""
    yield from text_table(
        ["tier", "labels", "acceptable", "AUC", "ECE", "Brier"],
        [
            [name, f"{figures['labels']:,}", *(_shown(figures.get(f)) for f in ("acceptable", "auc", "ece", "brier"))]
            for name, figures in evaluation.tiers.items()
        ],
    )
    if evaluation.targets:
        yield ""
        yield from text_table(
            ["target", "retained quality", "relative cost", "tier accuracy", *(f"{t} share" for t in subject.tiers)],
            [[f"{target:g}", *map(_shown, figures.values())] for target, figures in evaluation.targets.items()],
        )
    if worst := sorted(evaluation.slices, key=_rank)[:8]:
        yield ""
        shown = [[f"{s.kind}: {s.name}", f"{s.n:,}", *(_shown(s.figures[name]) for name in _RANKING)] for s in worst]
        yield from text_table(["slice", "prompts", "APGR", "CPT50", "CPT80"], shown)
        if len(evaluation.slices) > len(worst):
            yield f"and {len(evaluation.slices) - len(worst)} more slices with --json"


def _rank(part: Slice) -> float:
    """Its APGR; last where there is none."""
    value = part.figures["apgr"].value
    return 2.0 if value is None else value


def _candidates(evaluation: Evaluation) -> Iterator[str]:
    priced = evaluation.costs != "unknown"
    qualities = list(evaluation.cost[ROUTER])
    kept = "cost" if priced else "top share"
    header = ["", "APGR", "router ahead by", "CPT50", "CPT80", *(f"{kept} at {q:.0%}" for q in qualities)]
    rows = []
    for name, figures in evaluation.ranking.items():
        costs = [evaluation.cost[name][q]["relative_cost" if priced else "top_share"] for q in qualities]
        behind = None if name == ROUTER else figures["behind"]
        rows.append([name, *map(_shown, (figures["apgr"], behind, figures["cpt50"], figures["cpt80"], *costs))])
    yield from text_table(header, rows)
    yield f"costs: {evaluation.costs}; relative to always the top tier, at the threshold that is best in hindsight"


def _seen(subject: Subject) -> str:
    if subject.seen is None:
        return "the router does not remember what it was trained on, so repeats cannot be left out"
    return f"{subject.seen:,} left out that the router was made from, {subject.similar:,} similar to one of those"


def _shown(value: Estimate | int | None) -> str:
    if not isinstance(value, Estimate) or value.value is None:
        return "–"
    ends = "" if value.interval is None else f" [{value.interval[0]:.3f}, {value.interval[1]:.3f}]"
    return f"{value.value:.3f}{ends}"
