"""The story of an evaluation: predictions and outcomes → ranking, probabilities, targets, costs, slices, baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from serving.classifier.bundle import Threshold
from serving.classifier.trained_on import TrainedOn
from training.evaluation.baselines.catalogue import Candidate, baselines, ranked
from training.evaluation.curves import Curve, curve_along
from training.evaluation.figures import (
    Figures,
    alone_figures,
    cost_figures,
    ranking_figures,
    target_figures,
    tier_figures,
)
from training.evaluation.intervals import Estimate
from training.evaluation.judged import Costs, Judged
from training.evaluation.slices import slices_of

ROUTER: Final = "router"


@dataclass(frozen=True)
class Slice:
    """A part of the prompts: how many, and the figures on them alone."""

    kind: str
    name: str
    n: int
    figures: Figures


@dataclass(frozen=True)
class Evaluation:
    """How good a router is on prompts it has not seen. Every figure is defined in docs/metrics.md.

    n: prompts with evidence for every tier; n_labelled: with a label of any. alone: quality and relative cost of each
    tier for all. ranking and cost are by candidate, the router first. targets is empty for a ladder that the router was
    not trained for. missing: baselines that could not be had, and why.
    """

    n: int
    n_labelled: int
    groups: int
    tiers: Mapping[str, Mapping[str, Estimate | int]]
    alone: Mapping[str, Figures]
    ranking: Mapping[str, Figures]
    cost: Mapping[str, Mapping[float, Figures]]
    targets: Mapping[float, Figures]
    curve: Curve | None
    slices: tuple[Slice, ...]
    missing: Mapping[str, str]
    costs: Costs


def evaluate(
    judged: Judged,
    names: Sequence[str],
    thresholds: Sequence[Threshold],
    *,
    wanted: Sequence[str] = (),
    trained_on: TrainedOn | None = None,
    columns: Sequence[int] = (),
) -> Evaluation:
    """Everything about one router on one set of prompts, which may be empty.

    names: of the tiers. wanted: names of baselines, for which `trained_on` and `columns` are as in `baselines`.
    """
    on = judged.take(judged.speaking)
    candidates: list[Candidate] = []
    missing: dict[str, str] = {}
    if len(on):
        found, missing = baselines(wanted, on, trained_on, columns)
        candidates = [ranked(ROUTER, on.proba, on.expected_cost), *found]
    return Evaluation(
        n=len(on),
        n_labelled=len(judged),
        groups=on.resamples.groups,
        tiers=tier_figures(judged, names),
        alone=alone_figures(on, names) if len(on) else {},
        ranking=ranking_figures(candidates, on) if len(on) else {},
        cost=cost_figures(candidates, on) if len(on) else {},
        targets=target_figures(on, thresholds, names) if len(on) and thresholds else {},
        curve=curve_along(candidates[0].by_cost, on) if len(on) else None,
        slices=tuple(
            _slice(on.take(rows), kind, name, thresholds, names) for kind, name, rows in slices_of(on.examples)
        ),
        missing=missing,
        costs=judged.costs,
    )


def _slice(judged: Judged, kind: str, name: str, thresholds: Sequence[Threshold], names: Sequence[str]) -> Slice:
    """The router's ranking on a slice, and what the threshold for .95, or the nearest to it, gives there."""
    figures = dict(ranking_figures([ranked(ROUTER, judged.proba, judged.expected_cost)], judged)[ROUTER])
    del figures["behind"]
    if shown := shown_threshold(thresholds):
        figures |= target_figures(judged, [shown], names)[shown.target]
    return Slice(kind, name, len(judged), figures)


def shown_threshold(thresholds: Sequence[Threshold]) -> Threshold | None:
    """The one whose figures stand for all where there is room for one: .95, or the nearest to it."""
    return min(thresholds, key=lambda t: abs(t.target - 0.95), default=None)
