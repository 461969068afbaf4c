"""Everything the routing rule can do with one set of predictions: who moves to which tier as μ falls, step by step."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import FloatArray


@dataclass(frozen=True)
class Path:
    """The choices `argmax value - μ × cost` as μ falls from ∞ to -∞: from each prompt's cheapest tier to its dearest.

    start: (n,) each prompt's first tier. row, before, after: (m,) the moves in order, a prompt and two tiers.
    ends: (s,) the last move of each step. Moves of one step have the same μ: within it the rule is indifferent,
    and prompts drawn at random among them give the straight line between its two ends.
    """

    start: NDArray[np.intp]
    row: NDArray[np.intp]
    before: NDArray[np.intp]
    after: NDArray[np.intp]
    ends: NDArray[np.intp]

    def along(self, amount: FloatArray) -> "Amount":
        """How the total of `amount`, (n, k) per prompt and tier, develops over the steps."""
        first = np.asarray(amount[np.arange(len(self.start)), self.start], np.float64)
        change = np.asarray(amount[self.row, self.after] - amount[self.row, self.before], np.float64)
        return Amount(first, change, self.row, self.ends)

    def mean_along(self, amount: FloatArray, evidence: FloatArray) -> "Mean":
        """How the mean of `amount` over `evidence` develops, both (n, k)."""
        return Mean(self.along(amount), None if (evidence == 1).all() else self.along(evidence))


@dataclass(frozen=True)
class Amount:
    """One amount along a path: what it is at the start, (n,), and how each move changes it, (m,)."""

    first: NDArray[np.float64]
    change: NDArray[np.float64]
    row: NDArray[np.intp]
    ends: NDArray[np.intp]

    def totals(self, weight: FloatArray) -> NDArray[np.float64]:
        """The weighted mean before the first and after each step: weights (n,) → (s + 1,)."""
        moved = np.cumsum(weight[self.row] * self.change)[self.ends]
        return np.asarray((weight @ self.first + np.concatenate([[0.0], moved])) / weight.sum())


@dataclass(frozen=True)
class Mean:
    """An amount along a path over the evidence for it; None where every prompt counts once at every tier."""

    amount: Amount
    evidence: Amount | None

    def totals(self, weight: FloatArray) -> NDArray[np.float64]:
        """The weighted mean before the first and after each step, nan without evidence: weights (n,) → (s + 1,)."""
        totals = self.amount.totals(weight)
        if self.evidence is None:
            return totals
        evidence = self.evidence.totals(weight)
        return np.divide(totals, evidence, out=np.full_like(totals, np.nan), where=evidence > 1e-9)


def path_of(value: FloatArray, cost: FloatArray) -> Path:
    """The path of predicted values under the costs that the rule expects, both (n, k).

    For each prompt the moves are the corners of the upper concave envelope of its points (cost, value), found by
    gift wrapping; μ at a move is the slope between two corners.
    """
    n, rows = len(value), np.arange(len(value))
    cost = np.asarray(cost, np.float64)
    cheapest = cost == cost.min(axis=1, keepdims=True)
    start = np.argmax(np.where(cheapest, value, -np.inf), axis=1)
    here, moves = start.copy(), []
    for _ in range(value.shape[1] - 1):
        rise, run = value - value[rows, here, None], cost - cost[rows, here, None]
        slope = np.where(run > 0, rise / np.where(run > 0, run, 1.0), -np.inf)
        steepest = slope.max(axis=1)
        # Of several tiers on one edge the dearest: the corner is where the edge ends.
        there = np.argmax(np.where(slope == steepest[:, None], run, -1.0), axis=1)
        moving = np.isfinite(steepest)
        moves.append((rows[moving], here[moving], there[moving], steepest[moving]))
        here = np.where(moving, there, here)
    row, before, after, slope = (np.concatenate(parts) for parts in zip(*moves, strict=True))
    order = np.argsort(-slope, kind="stable")
    # Slopes that differ by rounding only are one step: scores that repeat must not be ordered by noise.
    falls = np.diff(slope[order]) < -1e-12 * np.maximum(np.abs(slope[order][1:]), 1e-300)
    ends = np.append(np.flatnonzero(falls), len(order) - 1) if n and len(order) else np.empty(0, np.intp)
    return Path(start, row[order], before[order], after[order], np.asarray(ends, np.intp))


def fixed_path(n: int, tier: int) -> Path:
    """A path without a move: everything always goes to one tier."""
    none = np.empty(0, np.intp)
    return Path(np.full(n, tier, np.intp), none, none, none, none)
