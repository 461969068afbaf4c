"""What heads are made of, by cross-validation on the prompts to fit: how much of the prior, and do the trees help?"""

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import FloatArray, log_odds, sigmoid
from training.fitting.cross_validation import TO_CHOOSE, cross_validated
from training.fitting.examples import Examples
from training.fitting.heads import Members, Recipe, platt

_SHARES: Final = np.linspace(0, 1, 5)


@dataclass(frozen=True)
class Difference:
    """How much lower one Brier score is than another, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.4f} (95 % interval {self.low:+.4f} to {self.high:+.4f})"


@dataclass(frozen=True)
class Choice:
    """The recipe, and why.

    brier: mean squared error of the kernel on prompts that it was not fitted on. by_prior, by_trees: what they take off
    it. None where they were not asked about, or nothing could be judged.
    """

    recipe: Recipe
    brier: float | None = None
    by_prior: Difference | None = None
    by_trees: Difference | None = None

    def __str__(self) -> str:
        lines = [f"heads: {self.recipe.members}"]
        if self.brier is not None and self.by_trees is not None:
            why = "trees help" if self.recipe.members == "kernel and trees" else "trees are not shown to help"
            lines = [f"{lines[0]}; {why}: they take {self.by_trees} off a Brier score of {self.brier:.4f}"]
        if self.by_prior is not None:
            lines.append(
                f"prior: counted {self.recipe.prior_share:.2f} of what it says; "
                f"so it takes {self.by_prior} off the Brier score"
            )
        return "\n".join(lines)


def choose(
    examples: Examples, recipe: Recipe, groups: NDArray[np.intp], wanted: Members | Literal["auto"] = "auto"
) -> Choice:
    """The recipe for these examples, from one that names their prior; groups (n,) are never divided.

    With `auto` the trees join the kernel where that lowers the Brier score with 95 % confidence.
    """
    recipe = replace(recipe, members="kernel")
    kernel = alone = cross_validated(examples, replace(recipe, prior=None), groups, TO_CHOOSE)
    if recipe.prior is not None:
        whole = cross_validated(examples, recipe, groups, TO_CHOOSE)
        recipe = replace(recipe, prior_share=_share_of_prior(alone, whole, examples))
        kernel = _mixed(alone, whole, recipe.prior_share)
    both = replace(recipe, members="kernel and trees")
    trees = kernel if wanted == "kernel" else cross_validated(examples, both, groups, TO_CHOOSE)
    if np.isnan(examples.judged() + kernel).all():  # too few groups; or complaints alone, which teach and judge nothing
        return Choice(both if wanted == "kernel and trees" else recipe)
    loss = {name: (sigmoid(z) - examples.judged()) ** 2 for name, z in
            (("alone", alone), ("kernel", kernel), ("trees", trees))}  # fmt: skip
    by_prior = None if recipe.prior is None else _paired(loss["alone"] - loss["kernel"], groups)
    by_trees = _paired(loss["kernel"] - loss["trees"], groups) if wanted == "auto" else None
    helped = wanted == "kernel and trees" or (by_trees is not None and by_trees.low > 0)
    brier = float(np.nanmean(loss["kernel"]))
    return Choice(both if helped else recipe, brier, by_prior, by_trees)


def _share_of_prior(alone: FloatArray, whole: FloatArray, examples: Examples) -> float:
    """How much of the prior counts, 0 to 1: the mean of some shares, weighted by the likelihood of the labels.

    alone, whole: cross-validated log-odds (n, k) with none and all of it. With few labels the shares are about as
    likely as each other; with many, one is left. Source: pseudo-Bayesian model averaging, Yao et al. 2018,
    arXiv:1704.02030, section 3.4, without the bootstrap.
    """
    likelihood = np.zeros(len(_SHARES))
    y, weight = examples.acceptable, examples.label_weight()
    known = (weight > 0) & ~np.isnan(alone)
    for i, share in enumerate(_SHARES):
        z = _mixed(alone, whole, share)
        slope, intercept = platt(z, examples)
        p = sigmoid(z * slope + intercept)[known]
        likelihood[i] = np.sum(weight[known] * (y[known] * np.log(p) + (1 - y[known]) * np.log1p(-p)))
    odds = np.exp(likelihood - likelihood.max())
    return float(odds @ _SHARES / odds.sum())


def _mixed(alone: FloatArray, whole: FloatArray, share: float) -> NDArray[np.float64]:
    """Log-odds of a kernel fitted from that share of the prior: ridge regression is linear in its targets."""
    return log_odds((1 - share) * sigmoid(alone) + share * sigmoid(whole))


def _paired(differences: FloatArray, groups: NDArray[np.intp]) -> Difference:
    """Mean over labels (n, k) and its 95 % interval, the prompts of a group taken as one (a ratio of sums)."""
    group = np.unique(groups, return_inverse=True)[1]
    known = ~np.isnan(differences)
    sums = np.bincount(group, np.nansum(differences, axis=1))
    counts = np.bincount(group, known.sum(axis=1))
    mean = float(sums.sum() / counts.sum())
    error = 1.96 * float(np.sqrt(((sums - mean * counts) ** 2).sum())) / float(counts.sum())
    return Difference(mean, mean - error, mean + error)
