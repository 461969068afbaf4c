"""Heads as `tierwise train` makes them, for any examples: members chosen, a prior or none, calibrated."""

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serving.classifier.bundle import Predictions
from serving.classifier.heads import Heads
from serving.classifier.kernel import Kernel
from tests.quality.tables import Sources, Table
from training.config import TrainingConfig
from training.data import public_data
from training.encoders import DEFAULT_ENCODER
from training.fitting.choice import choose
from training.fitting.cross_validation import TO_CALIBRATE, cross_validated
from training.fitting.examples import Examples
from training.fitting.heads import Members, Recipe, calibrated, fit_heads
from training.fitting.prior import fit_prior, without_copies
from training.pipeline import public_examples

CONFIG = TrainingConfig()
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
    """Calibrated heads; groups (n,) are never divided in cross-validation."""
    choice = choose(examples, Recipe(CONFIG.heads, "kernel", prior, CONFIG.seed), groups, members)
    unseen = cross_validated(examples, choice.recipe, groups, TO_CALIBRATE)
    return calibrated(fit_heads(examples, choice.recipe), unseen, examples)


def predicted(heads: Heads, examples: Examples) -> Predictions:
    """What the heads say of the examples."""
    return Predictions(*heads.predict(examples.embedding, examples.features))


@cache
def cross_fitted(table: Table, sources: Sources) -> Predictions:
    """Predictions for every row of a table by heads that were made of other groups, five times over."""
    examples, groups = sources.examples(table), sources.groups(table)
    distinct, group = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(1).permutation(len(distinct))[group] % _FOLDS
    prior = prior_for(examples)
    found = Predictions(np.empty(examples.acceptable.shape), np.empty(examples.acceptable.shape))
    for i in range(_FOLDS):
        heads = fitted(examples.take(fold != i), groups[fold != i], prior=prior, members="kernel")
        part = predicted(heads, examples.take(fold == i))
        found.proba[fold == i], found.output_tokens[fold == i] = part.proba, part.output_tokens
    return found
