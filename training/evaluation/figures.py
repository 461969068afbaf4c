"""The figures of an evaluation as functions of weights, so that each can be resampled."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.bundle import Threshold
from serving.routing.promise import choose
from training.evaluation.baselines.catalogue import Candidate
from training.evaluation.intervals import Estimate, estimated
from training.evaluation.judged import Judged
from training.evaluation.probabilities import auc, bins_of, brier, squared_calibration_error
from training.evaluation.ranking import apgr, call_performance_threshold, cheapest_at

QUALITIES: Final = (0.95, 0.98, 0.99)
Figures = Mapping[str, Estimate]


def ranking_figures(candidates: Sequence[Candidate], judged: Judged) -> dict[str, Figures]:
    """For each candidate APGR, CPT50 and CPT80, and the first's APGR less its own as `behind`, on paired resamples.

    judged: prompts with evidence. A candidate without a ranking gets undefined figures.
    """
    quality_of, evidence = (amount[:, [0, -1]] for amount in (judged.quality, judged.evidence))
    of_top = np.broadcast_to([0.0, 1.0], evidence.shape)
    amounts = [
        None if c.by_share is None else (c.by_share.along(of_top), c.by_share.mean_along(quality_of, evidence))
        for c in candidates
    ]

    def statistic(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        weak, strong = judged.tier_quality(weight)[[0, -1]]
        rows = np.full((len(candidates), 4), np.nan)
        for row, pair in zip(rows, amounts, strict=True):
            if pair is not None:
                share, quality = pair[0].totals(weight), pair[1].totals(weight)
                row[0] = apgr(share, quality, weak, strong)
                row[1:3] = [call_performance_threshold(share, quality, weak, strong, part) for part in (0.5, 0.8)]
        rows[:, 3] = rows[0, 0] - rows[:, 0]
        return rows.ravel()

    figures = estimated(statistic, judged.resamples)
    names = ("apgr", "cpt50", "cpt80", "behind")
    return {c.name: dict(zip(names, figures[4 * i : 4 * i + 4], strict=True)) for i, c in enumerate(candidates)}


def cost_figures(candidates: Sequence[Candidate], judged: Judged) -> dict[str, dict[float, Figures]]:
    """For each candidate and quality, the least relative cost that retains it, and the top tier's share of calls there.

    Chosen in hindsight, on these very prompts: what a candidate's ranking allows, not what a threshold promises.
    """
    top = np.zeros_like(judged.cost)
    top[:, -1] = 1
    amounts = [
        (c.by_cost.mean_along(judged.quality, judged.evidence), c.by_cost.along(judged.cost), c.by_cost.along(top))
        for c in candidates
    ]

    def statistic(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        best, dearest = judged.tops(weight)
        found = []
        for each in amounts:
            quality, cost, share = (amount.totals(weight) for amount in each)
            found += [cheapest_at(quality / best, cost, share, target) / [dearest, 1] for target in QUALITIES]
        return np.concatenate(found)

    figures = iter(estimated(statistic, judged.resamples))
    return {
        c.name: {quality: {"relative_cost": next(figures), "top_share": next(figures)} for quality in QUALITIES}
        for c in candidates
    }


def alone_figures(judged: Judged, names: Sequence[str]) -> dict[str, Figures]:
    """Mean outcome (`quality`) and relative cost of each tier when it gets every prompt."""

    def statistic(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        costs = weight @ judged.cost / weight.sum()
        return np.concatenate([judged.tier_quality(weight), costs / judged.tops(weight)[1]])

    figures = estimated(statistic, judged.resamples)
    pairs = zip(names, figures[: len(names)], figures[len(names) :], strict=True)
    return {name: {"quality": quality, "relative_cost": cost} for name, quality, cost in pairs}


def tier_figures(judged: Judged, names: Sequence[str]) -> dict[str, dict[str, Estimate | int]]:
    """For each tier, over the prompts it was judged on: their number, share acceptable, AUC, debiased ECE, Brier."""
    return {name: _tier_figures(judged, tier) for tier, name in enumerate(names)}


def _tier_figures(judged: Judged, tier: int) -> dict[str, Estimate | int]:
    rows = np.flatnonzero(~np.isnan(judged.acceptable[:, tier]))
    if len(rows) == 0:
        return {"labels": 0}
    proba, y = (np.asarray(a[rows, tier], np.float64) for a in (judged.proba, judged.acceptable))
    bin_of, resamples = bins_of(proba), judged.resamples.take(rows)

    def statistic(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([weight @ y / weight.sum(), auc(proba, y, weight), brier(proba, y, weight)])

    def squared(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([squared_calibration_error(proba, y, weight, bin_of)])

    figures = dict(zip(("acceptable", "auc", "brier"), estimated(statistic, resamples), strict=True))
    (square,) = estimated(squared, resamples, recentre=True)
    return {"labels": len(rows), **figures, "ece": _root(square)}


def _root(square: Estimate) -> Estimate:
    """Of a debiased square, which noise can take below 0."""
    low, high = (None, None) if square.interval is None else map(_positive_root, square.interval)
    interval = None if low is None or high is None else (low, high)
    return Estimate(None if square.value is None else _positive_root(square.value), interval)


def _positive_root(square: float) -> float:
    return float(np.sqrt(max(square, 0.0)))


def target_figures(judged: Judged, thresholds: Sequence[Threshold], names: Sequence[str]) -> dict[float, Figures]:
    """What each threshold gives: retained quality, relative cost, tier accuracy and every tier's share of calls.

    judged: prompts with evidence. A refused target is judged at μ = 0, which is what serves then.
    """
    right = _cheapest_acceptable(judged)
    choices = [choose(judged.proba, judged.expected_cost, t.mu or 0.0) for t in thresholds]
    known = right >= 0

    def statistic(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        found = []
        for choice in choices:
            quality, cost, shares = judged.of_choice(choice, weight)
            judgeable = weight[known].sum()
            hit = weight[known] @ (choice == right)[known] / judgeable if judgeable else np.nan
            found += [quality, cost, hit, *shares]
        return np.array(found)

    figures = iter(estimated(statistic, judged.resamples))
    fields = ("retained_quality", "relative_cost", "tier_accuracy", *(f"share.{name}" for name in names))
    return {t.target: {field: next(figures) for field in fields} for t in thresholds}


def _cheapest_acceptable(judged: Judged) -> NDArray[np.intp]:
    """The cheapest tier whose answer was acceptable, (n,); -1 where no tier's was, or not all are known.

    A share of acceptable answers counts as acceptable from one half on.
    """
    good = judged.acceptable >= 0.5
    return np.asarray(np.where(judged.complete & good.any(axis=1), np.argmax(good, axis=1), -1), np.intp)
