"""Do the trees help? Cross-validated on the prompts to fit, and the simpler heads where the difference is noise."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import FloatArray, sigmoid
from training.fitting.examples import Examples
from training.fitting.heads import Members, Recipe, fit_heads

_FOLDS: Final = 4


@dataclass(frozen=True)
class Choice:
    """Which members, and why.

    brier: mean squared error on prompts not fitted on, by members; None when a setting chose. difference: how much
    lower that of the kernel and trees is, and the ends of its 95 % interval.
    """

    members: Members
    brier: dict[Members, float] | None = None
    difference: tuple[float, float, float] | None = None

    def __str__(self) -> str:
        if self.brier is None or self.difference is None:
            return f"heads: {self.members}, as set"
        value, low, high = self.difference
        why = "the trees help" if self.members == "kernel and trees" else "trees would add noise"
        return (
            f"heads: {self.members}; {why}: Brier score {self.brier['kernel']:.4f} without them and "
            f"{self.brier['kernel and trees']:.4f} with, lower by {value:.4f} (95 % interval {low:+.4f} to {high:+.4f})"
        )


def choose_members(examples: Examples, recipe: Recipe, groups: NDArray[np.intp]) -> Choice:
    """The members for these examples; groups (n,) are never divided between fitting and judging.

    Raises nothing: with fewer groups than folds the kernel is taken.
    """
    distinct, group = np.unique(groups, return_inverse=True)
    if len(distinct) < _FOLDS:
        return Choice("kernel")
    fold = np.random.default_rng(recipe.seed).permutation(len(distinct))[group] % _FOLDS
    candidates: tuple[Members, ...] = ("kernel", "kernel and trees")
    loss = {members: np.full(examples.acceptable.shape, np.nan) for members in candidates}
    untold = replace(examples, output_tokens=np.full_like(examples.output_tokens, np.nan))  # not what is asked here
    for i in range(_FOLDS):
        judged = untold.take(fold == i)
        both = fit_heads(untold.take(fold != i), replace(recipe, members="kernel and trees"))
        for members, heads in zip(candidates, (replace(both, trees=None), both), strict=True):
            proba = sigmoid(heads.log_odds(judged.embedding, judged.features))
            loss[members][fold == i] = (proba - judged.judged()) ** 2
    gain, low, high = _paired(np.nanmean(loss["kernel"] - loss["kernel and trees"], axis=1), group)
    members = candidates[int(low > 0)]
    return Choice(members, {name: float(np.nanmean(values)) for name, values in loss.items()}, (gain, low, high))


def _paired(differences: FloatArray, group: NDArray[np.intp]) -> tuple[float, float, float]:
    """Mean difference a prompt and its 95 % interval, prompts of a group taken as one (a ratio of sums)."""
    known = ~np.isnan(differences)
    sums = np.bincount(group[known], differences[known])
    counts = np.bincount(group[known])
    sums, counts = sums[counts > 0], counts[counts > 0]
    mean = float(sums.sum() / counts.sum())
    error = 1.96 * float(np.sqrt(((sums - mean * counts) ** 2).sum())) / float(counts.sum())
    return mean, mean - error, mean + error
