"""A labelled prompt, wherever it was read, and many of them as the arrays that a router is fitted on."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.classifier.features import FEATURE_NAMES
from training.fitting.examples import Examples, label_arrays
from training.labelling.outcomes import Labels

SLICES: Final = ("table", "task", "team", "feature")


class LabelledPrompt(NamedTuple):
    """One prompt; fields as in `Examples`. slices: in the order of `SLICES`."""

    id: str
    key: bytes
    features: NDArray[np.float32]
    input_tokens: float
    held_out: bool
    rule_words: float
    slices: tuple[str | None, ...]
    labels: Labels


def examples_of(prompts: Sequence[LabelledPrompt], embedding: NDArray[np.float32]) -> Examples:
    """At least one prompt, and their embeddings (n, d)."""
    ids, keys, features, input_tokens, held_out, words, slices, labels = zip(*prompts, strict=True)
    return Examples(
        id=np.array(ids, object),
        key=np.array(keys, "S64"),
        embedding=embedding,
        features=np.stack(features).reshape(len(prompts), len(FEATURE_NAMES)),
        input_tokens=np.array(input_tokens, np.float32),
        expected=np.full((len(prompts), len(labels[0].acceptable)), np.nan, np.float32),
        held_out=np.array(held_out),
        rule_words=np.array(words, np.float32),
        slices={name: np.array(values, object) for name, values in zip(SLICES, zip(*slices, strict=True), strict=True)},
        **label_arrays(labels),
    )
