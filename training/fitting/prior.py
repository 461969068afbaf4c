"""The public outcomes as a prior: a kernel that says what tiers like these could do with a prompt."""

from typing import Final

import numpy as np

from serving.classifier.kernel import Kernel
from training.config import HeadSettings
from training.fitting.examples import Examples
from training.fitting.kernel import fit_kernel

_BLOCK: Final = 1024  # public prompts compared at a time


def fit_prior(public: Examples, settings: HeadSettings, seed: int) -> Kernel:
    """A kernel on the public outcomes, with an output for each tier of their ladder."""
    target, weight = public.targets()
    return fit_kernel(public.embedding, public.features, target, weight, settings, seed)


def without_copies(public: Examples, own: Examples, cosine: float) -> Examples:
    """The public outcomes without the log's own prompts, or prompts at least `cosine` alike: a prior would know the
    answers on them."""
    blocks = (public.embedding[i : i + _BLOCK] @ own.embedding.T for i in range(0, len(public), _BLOCK))
    alike = np.concatenate([block.max(axis=1, initial=-1) >= cosine for block in blocks])
    return public.take(~(alike | np.isin(public.key, own.key)))
