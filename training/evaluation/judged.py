"""What a router is judged on: what it predicted for prompts, beside what happened."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from serving.classifier.bundle import Bundle
from serving.classifier.proba import FloatArray
from serving.routing.costs import expected_costs, priced
from serving.routing.promise import evidence
from serving.tiers import Tier
from training.evaluation.intervals import Resamples
from training.fitting.examples import Examples

_ARRAYS: Final = ("proba", "expected_cost", "acceptable", "evidence", "quality", "cost")
Costs = Literal["recorded", "recorded or list price", "list price", "unknown"]


@dataclass(frozen=True)
class Judged:
    """n prompts, k tiers of the ladder, cheapest first.

    proba, expected_cost: (n, k), what the router predicts. acceptable: (n, k), what was judged, NaN where it was not.
    evidence: (n, k), how much the outcome counts: 1 where every tier was judged; inverse propensity where one was, and
    0 at the others; NaN in rows that say nothing of a policy. quality: (n, k), outcome × evidence. cost: (n, k) in USD,
    paid or at list price; in steps of the ladder when `costs` is unknown.
    resamples: draws of their groups. examples: the prompts themselves.
    """

    proba: FloatArray
    expected_cost: FloatArray
    acceptable: FloatArray
    evidence: FloatArray
    quality: FloatArray
    cost: FloatArray
    resamples: Resamples
    examples: Examples
    costs: Costs

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """The prompts at `rows`, a mask or indices."""
        arrays = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return replace(self, **arrays, resamples=self.resamples.take(rows), examples=self.examples.take(rows))

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Prompts that every tier was judged on, (n,)."""
        return np.asarray(~np.isnan(self.acceptable).any(axis=1), np.bool_)

    @property
    def speaking(self) -> NDArray[np.bool_]:
        """Prompts that speak for every tier, (n,): complete, or one tier judged with its propensity known."""
        return np.asarray(~np.isnan(self.evidence).any(axis=1), np.bool_)

    def mean_quality(self, choice: NDArray[np.intp], weight: FloatArray) -> float:
        """Mean outcome of prompts (n,) sent to tiers `choice`, each counting `weight` times; nan without evidence.

        Source: the self-normalised estimator of Swaminathan & Joachims 2015 ("The self-normalized estimator for
        counterfactual learning"), which stays within the range of the outcomes.
        """
        rows = np.arange(len(choice))
        evidence = float(weight @ self.evidence[rows, choice])
        return float(weight @ self.quality[rows, choice]) / evidence if evidence > 0 else float("nan")

    def tier_quality(self, weight: FloatArray) -> NDArray[np.float64]:
        """Mean outcome of each tier alone: weight (n,) → (k,)."""
        ones = np.ones(len(self), np.intp)
        return np.array([self.mean_quality(tier * ones, weight) for tier in range(self.quality.shape[1])])

    def tops(self, weight: FloatArray) -> tuple[float, float]:
        """Mean outcome and mean cost of always the top tier; nan instead of 0, so that nothing is divided by it."""
        quality = self.tier_quality(weight)[-1]
        cost = float(weight @ self.cost[:, -1] / weight.sum())
        return (quality if quality > 0 else np.nan), (cost if cost > 0 else np.nan)

    def of_choice(self, choice: NDArray[np.intp], weight: FloatArray) -> tuple[float, float, NDArray[np.float64]]:
        """Retained quality, relative cost and the tiers' shares (k,) of sending prompts to tiers `choice`, (n,)."""
        best, dearest = self.tops(weight)
        cost = float(weight @ self.cost[np.arange(len(choice)), choice] / weight.sum())
        shares = np.bincount(choice, weight, self.quality.shape[1]) / weight.sum()
        return self.mean_quality(choice, weight) / best, cost / dearest, shares


def judge(
    bundle: Bundle, examples: Examples, groups: NDArray[np.intp], tiers: Sequence[Tier], columns: Sequence[int]
) -> Judged:
    """The bundle's predictions for `examples`, whose outcomes are those of `tiers`.

    columns: for each of `tiers` the bundle's tier that answers for it.
    """
    predicted = bundle.predict(examples.embedding, examples.features)
    proba, tokens = predicted.proba[:, list(columns)], predicted.output_tokens[:, list(columns)]
    expected = expected_costs(tiers, examples.input_tokens, tokens)
    acceptable = examples.judged()
    counts = evidence(acceptable, examples.weight)
    cost, costs = _paid(examples, tiers, tokens)
    return Judged(
        proba=proba,
        expected_cost=expected,
        acceptable=acceptable,
        evidence=counts,
        quality=np.nan_to_num(acceptable) * counts,
        cost=cost,
        resamples=Resamples.of(groups),
        examples=examples,
        costs=costs,
    )


def _paid(examples: Examples, tiers: Sequence[Tier], tokens: FloatArray) -> tuple[NDArray[np.float64], Costs]:
    """What each answer cost: as recorded, else list price times tokens, which are predicted where not recorded."""
    recorded = np.isfinite(examples.cost_usd)
    if recorded.all():
        return examples.cost_usd, "recorded"
    known = np.where(np.isnan(examples.output_tokens), tokens, examples.output_tokens)
    listed = expected_costs(tiers, examples.input_tokens, known)
    if not priced(tiers):  # a sum of dollars and steps of the ladder would mean nothing
        return listed, "unknown"
    return np.where(recorded, examples.cost_usd, listed), "recorded or list price" if recorded.any() else "list price"
