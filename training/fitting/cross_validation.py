"""What heads say of prompts that they were not fitted on: to choose between recipes, and to calibrate."""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.fitting.examples import Examples
from training.fitting.heads import Recipe, fit_heads

TO_CHOOSE: Final = 4  # folds: what is compared is compared on as many prompts
TO_CALIBRATE: Final = 10  # heads on nine tenths of the prompts are nearly as sure as those on all


def cross_validated(
    examples: Examples, recipe: Recipe, groups: NDArray[np.intp], folds: int, *, features_only: bool = False
) -> NDArray[np.float64]:
    """Log-odds of every prompt and tier, (n, k), not calibrated, by heads fitted without the prompt's fold.

    groups (n,) are never divided. NaN where there are fewer than `folds`, or no label of the tier in the other folds.
    """
    log_odds = np.full(examples.acceptable.shape, np.nan)
    distinct, group = np.unique(groups, return_inverse=True)
    if len(distinct) < folds:
        return log_odds
    fold = np.random.default_rng(recipe.seed).permutation(len(distinct))[group] % folds
    untold = replace(examples, output_tokens=np.full_like(examples.output_tokens, np.nan))  # not what is asked here
    for i in range(folds):
        judged, others = untold.take(fold == i), untold.take(fold != i)
        taught = (others.targets()[1] > 0).any(axis=0)
        heads = fit_heads(others, recipe, features_only=features_only)
        z = heads.log_odds(None if features_only else judged.embedding, judged.features)
        log_odds[fold == i] = np.where(taught, z, np.nan)
    return log_odds
