"""Probabilities, their log-odds, and the arrays they come in."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
_LEAST: Final = 0.01
"""A regression can leave [0, 1]; beyond this and one less this, how far says nothing."""


def sigmoid(z: FloatArray) -> NDArray[np.float64]:
    """1 / (1 + exp(-z)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(z, np.float64))))


def log_odds(proba: FloatArray) -> NDArray[np.float64]:
    """log(p / (1 - p)) of estimates of a probability, held within .01 and .99."""
    p = np.clip(np.asarray(proba, np.float64), _LEAST, 1 - _LEAST)
    return np.asarray(np.log(p) - np.log1p(-p))
