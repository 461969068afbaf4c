"""What heads are made of, by cross-validation on the prompts to fit: do the trees help, or is the difference noise?"""

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import FloatArray, sigmoid
from training.fitting.examples import Examples
from training.fitting.heads import Members, Recipe, fit_heads

_FOLDS: Final = 4


@dataclass(frozen=True)
class Choice:
    """Which members, why, and what they say of prompts that they were not fitted on.

    log_odds: (n, k), not calibrated, each by heads that were fitted without the prompt's fold; NaN where there were too
    few groups to cross-validate, or no label of the tier in the other folds. brier: mean squared error of those, by
    members. difference: how much lower that of the kernel and trees is, and the ends of its 95 % interval; None when a
    setting chose, or nothing could be compared.
    """

    members: Members
    log_odds: NDArray[np.float64]
    brier: dict[Members, float]
    difference: tuple[float, float, float] | None = None

    def __str__(self) -> str:
        if self.difference is None:
            return f"heads: {self.members}"
        value, low, high = self.difference
        why = "trees help" if self.members == "kernel and trees" else "trees are not shown to help"
        return (
            f"heads: {self.members}; {why}: they take {value:+.4f} (95 % interval {low:+.4f} to {high:+.4f}) "
            f"off a Brier score of {self.brier['kernel']:.4f}"
        )


def choose_members(
    examples: Examples, recipe: Recipe, groups: NDArray[np.intp], wanted: Members | Literal["auto"] = "auto"
) -> Choice:
    """The members for these examples; groups (n,) are never divided between fitting and judging.

    With `auto` the trees join the kernel where that lowers the Brier score with 95 % confidence.
    """
    distinct, group = np.unique(groups, return_inverse=True)
    candidates: tuple[Members, ...] = ("kernel", "kernel and trees") if wanted == "auto" else (wanted,)
    log_odds = {members: np.full(examples.acceptable.shape, np.nan) for members in candidates}
    if len(distinct) < _FOLDS:
        return Choice(candidates[0], log_odds[candidates[0]], {})
    fold = np.random.default_rng(recipe.seed).permutation(len(distinct))[group] % _FOLDS
    untold = replace(examples, output_tokens=np.full_like(examples.output_tokens, np.nan))  # not what is asked here
    for i in range(_FOLDS):
        judged, others = untold.take(fold == i), untold.take(fold != i)
        taught = (others.targets()[1] > 0).any(axis=0)
        heads = fit_heads(others, replace(recipe, members=candidates[-1]))
        for members in candidates:
            part = replace(heads, trees=None) if members == "kernel" else heads
            z = part.log_odds(judged.embedding, judged.features)
            log_odds[members][fold == i] = np.where(taught, z, np.nan)
    if np.isnan(examples.judged()).all():  # complaints teach, and judge nothing
        return Choice(candidates[0], log_odds[candidates[0]], {})
    loss = {members: (sigmoid(z) - examples.judged()) ** 2 for members, z in log_odds.items()}
    brier = {members: float(np.nanmean(values)) for members, values in loss.items()}
    if wanted != "auto":
        return Choice(wanted, log_odds[wanted], brier)
    difference = _paired(loss["kernel"] - loss["kernel and trees"], group)
    members = candidates[int(difference[1] > 0)]
    return Choice(members, log_odds[members], brier, difference)


def _paired(differences: FloatArray, group: NDArray[np.intp]) -> tuple[float, float, float]:
    """Mean over labels (n, k) and its 95 % interval, the prompts of a group taken as one (a ratio of sums)."""
    known = ~np.isnan(differences)
    sums = np.bincount(group, np.nansum(differences, axis=1))
    counts = np.bincount(group, known.sum(axis=1))
    mean = float(sums.sum() / counts.sum())
    error = 1.96 * float(np.sqrt(((sums - mean * counts) ** 2).sum())) / float(counts.sum())
    return mean, mean - error, mean + error
