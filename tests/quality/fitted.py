"""Heads as `tierwise train` makes them, for any examples: members chosen, a prior or none, calibrated."""

from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serving.classifier.bundle import Predictions
from serving.classifier.heads import Heads
from serving.classifier.kernel import Kernel
from training.config import TrainingConfig
from training.data import public_data
from training.encoders import DEFAULT_ENCODER
from training.fitting.examples import Examples
from training.fitting.heads import Members, Recipe, calibrated, fit_heads
from training.fitting.members import choose_members
from training.fitting.prior import fit_prior, without_copies
from training.pipeline import public_examples

CONFIG = TrainingConfig()
_CALIBRATE = CONFIG.split.calibrate / (CONFIG.split.fit + CONFIG.split.calibrate)
_FOLDS = 5


@cache
def public_outcomes() -> Examples:
    """The outcomes in the box, on their own ladder."""
    return public_examples(public_data(), DEFAULT_ENCODER, CONFIG)[0]


def prior_for(examples: Examples) -> Kernel:
    """The public prior of a log with these prompts, none of which it has seen."""
    others = without_copies(public_outcomes(), examples, CONFIG.same_prompt_cosine)
    return fit_prior(others, CONFIG.heads, CONFIG.seed).kernel


def fitted(
    examples: Examples, groups: NDArray[np.intp], *, prior: Kernel | None, members: Members | Literal["auto"] = "auto"
) -> Heads:
    """Calibrated heads; groups (n,) are not divided between fitting and calibrating."""
    distinct, group = np.unique(groups, return_inverse=True)
    kept_back = (np.random.default_rng(0).random(len(distinct)) < _CALIBRATE)[group]
    fit = examples.take(~kept_back)
    recipe = Recipe(CONFIG.heads, "kernel", prior, CONFIG.seed)
    choice = choose_members(fit, recipe, group[~kept_back], members)
    heads = fit_heads(fit, replace(recipe, members=choice.members))
    return calibrated(heads, examples.take(kept_back), (choice.log_odds, fit))


def predicted(heads: Heads, examples: Examples) -> Predictions:
    """What the heads say of the examples."""
    return Predictions(*heads.predict(examples.embedding, examples.features))


def cross_fitted(examples: Examples, groups: NDArray[np.intp]) -> Predictions:
    """Predictions for every row by heads that were made of other groups, five times over."""
    distinct, group = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(1).permutation(len(distinct))[group] % _FOLDS
    prior = prior_for(examples)
    found = Predictions(np.empty(examples.acceptable.shape), np.empty(examples.acceptable.shape))
    for i in range(_FOLDS):
        heads = fitted(examples.take(fold != i), groups[fold != i], prior=prior, members="kernel")
        part = predicted(heads, examples.take(fold == i))
        found.proba[fold == i], found.output_tokens[fold == i] = part.proba, part.output_tokens
    return found
