"""How often does a promise fail on real outcomes, and how much caution does it cost?

Random parts of a table, whose outcomes are known for every tier, are what a promise is chosen on; the rest of the table
and the whole of it say whether it holds. Pure functions of arrays: n = prompts, k = tiers, g = values of μ.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm

from serving.classifier.proba import FloatArray
from serving.routing.promise import CONFIDENCE, Outcomes, choose, evidence, held, walk_of

SPLITS: Final = 500
TARGETS: Final = (0.90, 0.95, 0.98, 0.99)
MAX_WEIGHT: Final = 100.0  # as in training


@dataclass(frozen=True)
class Rate:
    """A count of splits."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """Share of the splits."""
        return self.count / self.of

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, exact (Clopper & Pearson 1934): of the draw of splits, not of the table's prompts."""
        low = 0.0 if self.count == 0 else float(beta.ppf(0.025, self.count, self.of - self.count + 1))
        high = 1.0 if self.count == self.of else float(beta.ppf(0.975, self.count + 1, self.of - self.count))
        return low, high


@dataclass(frozen=True)
class PromiseRate:
    """What came of one target at one number of calibration rows. Shares and costs are those of the whole table.

    promised: splits in which a μ was found; in the others μ = 0 serves, promises nothing and cannot fail.
    failed_on_rest: retained quality on the rest_rows outside the calibration part was below the target, the noise of
    that part included. failed_on_table: it was on all rows of the table.
    top_share, cost: of each split's μ, (splits,). cost: relative to always the top tier.
    oracle_share, oracle_cost: of the largest μ that retains the target on the whole table; None where none does.
    ideal_share: of the largest μ up to which a one-sided normal test of that confidence, with the variance of the whole
    table, would be passed by `rows` rows that are like the table; of always the top tier where it is never passed.
    """

    target: float
    rows: int
    rest_rows: int
    confidence: float
    promised: Rate
    failed_on_rest: Rate
    failed_on_table: Rate
    top_share: NDArray[np.float64]
    cost: NDArray[np.float64]
    oracle_share: float | None
    oracle_cost: float | None
    ideal_share: float

    @property
    def noise_allows(self) -> float:
        """The share of failures on the rest that a promise with exactly its confidence would have.

        Its margin is z / √n of a normal mean; the difference of two parts of n and m rows moves by √(1/n + 1/m).
        """
        return float(norm.sf(norm.ppf(self.confidence) / (1 + self.rows / self.rest_rows) ** 0.5))

    @property
    def excess(self) -> float | None:
        """Mean share of calls to the top tier beyond the oracle's."""
        return None if self.oracle_share is None else float(self.top_share.mean()) - self.oracle_share

    @property
    def ideal_excess(self) -> float | None:
        """The same of the ideal test."""
        return None if self.oracle_share is None else self.ideal_share - self.oracle_share


def explored(proba: FloatArray, costs: FloatArray, mu: float, exploration: float) -> NDArray[np.float64]:
    """Propensities (n, k) of a policy at μ that draws any tier in a share `exploration` of the calls."""
    n, k = proba.shape
    propensity = np.full((n, k), exploration / k)
    propensity[np.arange(n), choose(proba, costs, mu)] += 1 - exploration
    return propensity


def promise_rates(
    proba: FloatArray,
    costs: FloatArray,
    acceptable: FloatArray,
    propensity: FloatArray | None = None,
    *,
    sizes: Sequence[int],
    targets: Sequence[float] = TARGETS,
    splits: int = SPLITS,
    max_weight: float = MAX_WEIGHT,
    confidence: float = CONFIDENCE,
    redrawn: bool = False,
    seed: int = 0,
) -> list[PromiseRate]:
    """Rates for each target and each number of calibration rows, from the same random splits.

    proba, costs, acceptable: (n, k), predictions and outcomes, known for every tier. propensity: (n, k), with which a
    log shows one tier's outcome of each calibration row, drawn anew for each split; None where it shows all.
    redrawn: calibration rows are drawn from the table with replacement, as prompts are from endless traffic whose
    truth is the table; the rest is then the table as well.
    Raises ValueError when a size leaves no row to judge on, or an outcome is unknown.
    """
    n = len(proba)
    if np.isnan(acceptable).any():
        raise ValueError("every tier's outcome must be known for every row")
    if not redrawn and max(sizes) >= n:
        raise ValueError(f"{max(sizes)} calibration rows leave none of {n} to judge on")
    walk = walk_of(proba, costs, float(costs[:, -1].mean()))
    truth = Outcomes.of(acceptable, np.ones_like(acceptable))
    got, top = truth.by(walk.choices), truth.top
    share = (walk.choices == proba.shape[1] - 1).mean(axis=1)
    cost = np.array([costs[np.arange(n), choice].sum() for choice in walk.choices]) / costs[:, -1].sum()
    retained = got.mean(axis=1) / top.mean()

    rng = np.random.default_rng(seed)
    served = np.zeros((len(targets), len(sizes), splits), np.intp)  # how many μ were held: 0 promises nothing
    on_rest = np.zeros(served.shape)
    for split in range(splits):
        order = rng.integers(n, size=max(sizes)) if redrawn else rng.permutation(n)[: max(sizes)]
        shown = (
            truth.take(order) if propensity is None else _logged(acceptable[order], propensity[order], max_weight, rng)
        )
        for j, size in enumerate(sizes):
            rest = np.ones(n, bool)
            if not redrawn:
                rest[order[:size]] = False
            seen, choices = shown.take(slice(size)), walk.choices[:, order[:size]]
            for i, target in enumerate(targets):
                served[i, j, split] = count = held(seen, choices, target, 1 - confidence)
                on_rest[i, j, split] = got[max(count - 1, 0), rest].mean() / top[rest].mean()

    def rates() -> Iterator[PromiseRate]:
        for i, target in enumerate(targets):
            enough = np.flatnonzero(retained >= target)
            oracle = enough[-1] if len(enough) else None
            margins = truth.margins(walk.choices, target)
            strength = margins.mean(axis=1) / np.maximum(margins.std(axis=1), 1e-12)
            for j, size in enumerate(sizes):
                promised = served[i, j] > 0
                row = np.maximum(served[i, j] - 1, 0)
                passed = np.cumprod(strength >= norm.ppf(confidence) / size**0.5).sum()
                yield PromiseRate(
                    target=target,
                    rows=size,
                    rest_rows=n if redrawn else n - size,
                    confidence=confidence,
                    promised=_rate(promised),
                    failed_on_rest=_rate(promised & (on_rest[i, j] < target)),
                    failed_on_table=_rate(promised & (retained[row] < target)),
                    top_share=share[row],
                    cost=cost[row],
                    oracle_share=None if oracle is None else float(share[oracle]),
                    oracle_cost=None if oracle is None else float(cost[oracle]),
                    ideal_share=float(share[passed - 1]) if passed else 1.0,
                )

    return list(rates())


def _rate(happened: NDArray[np.bool_]) -> Rate:
    return Rate(int(happened.sum()), len(happened))


def _logged(acceptable: FloatArray, propensity: FloatArray, max_weight: float, rng: np.random.Generator) -> Outcomes:
    """The outcomes as a log has them: one tier of each row, drawn by its propensity."""
    drawn = (rng.random((len(propensity), 1)) > np.cumsum(propensity, axis=1)[:, :-1]).sum(axis=1)
    tried = np.arange(propensity.shape[1]) == drawn[:, None]
    weight = np.where(tried, np.minimum(1 / propensity, max_weight), np.nan)
    outcome = np.where(tried, acceptable, np.nan)
    return Outcomes.of(outcome, evidence(outcome, weight))
