"""The public outcomes as a prior: a kernel that says what tiers like these could do with a prompt."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.kernel import Kernel
from training.config import HeadSettings
from training.fitting.examples import Examples
from training.fitting.kernel import fit_kernel

_BLOCK: Final = 1024  # public prompts compared at a time


@dataclass(frozen=True)
class PublicPrior:
    """kernel: with an output for each tier of the public ladder. keys: of the prompts it was fitted on."""

    kernel: Kernel
    keys: NDArray[np.bytes_]


def fit_prior(public: Examples, settings: HeadSettings, seed: int) -> PublicPrior:
    """What a log's heads start from, fitted on the public outcomes."""
    target, weight = public.targets()
    kernel = fit_kernel(public.embedding, public.features, target, weight, settings, seed)
    return PublicPrior(kernel, public.key)


def without_copies(public: Examples, own: Examples, cosine: float) -> Examples:
    """The public outcomes without the log's own prompts, or prompts at least `cosine` alike: a prior would know the
    answers on them."""
    blocks = (public.embedding[i : i + _BLOCK] @ own.embedding.T for i in range(0, len(public), _BLOCK))
    alike = np.concatenate([block.max(axis=1, initial=-1) >= cosine for block in blocks])
    return public.take(~(alike | np.isin(public.key, own.key)))
