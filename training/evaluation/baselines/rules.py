"""Rules that need no training: how long the prompt is, and which words are in it."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.features import FEATURE_NAMES
from training.fitting.examples import Examples

LONG_CHARS: Final = 500
ENOUGH_WORDS: Final = 2
"""The limits that rule-based routers copy from each other, beside `RULE_WORDS`."""


def prompt_length(examples: Examples) -> NDArray[np.float64]:
    """Characters of the last user turn, (n,)."""
    return _characters(examples, "log_chars")


def question_length(examples: Examples) -> NDArray[np.float64]:
    """The same without answer options, (n,)."""
    return _characters(examples, "log_question_chars")


def keyword_rule(examples: Examples) -> NDArray[np.float64]:
    """1 for prompts the rule calls complex, longer than 500 characters or with two of its words, else 0: (n,)."""
    return ((prompt_length(examples) > LONG_CHARS) | (examples.rule_words >= ENOUGH_WORDS)).astype(np.float64)


def _characters(examples: Examples, feature: str) -> NDArray[np.float64]:
    """A length back from its feature, which is log(1 + characters) in single precision."""
    return np.rint(np.expm1(examples.features[:, FEATURE_NAMES.index(feature)].astype(np.float64)))
