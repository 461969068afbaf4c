"""The public outcomes as a prior: a kernel that says what tiers like these could do with a prompt."""

import numpy as np
from numpy.typing import NDArray

from serving.classifier.kernel import Kernel
from training.config import HeadSettings
from training.fitting.examples import Examples
from training.fitting.kernel import fit_kernel


def fit_prior(public: Examples, own_keys: NDArray[np.bytes_], settings: HeadSettings, seed: int) -> Kernel:
    """A kernel on the public outcomes, with an output for each tier of their ladder.

    own_keys: of the log's own prompts, which are left out: on them the prior would know the answer.
    """
    others = public.take(~np.isin(public.key, own_keys))
    target, weight = others.targets()
    return fit_kernel(others.embedding, others.features, target, weight, settings, seed)
