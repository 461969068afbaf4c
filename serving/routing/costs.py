"""What a call to each tier is expected to cost.

An expectation is a statistic, kept in floats; amounts of money that were or will be paid are integers elsewhere.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import FloatArray
from serving.tiers import PICO_PER_USD, Tier


def priced(tiers: Sequence[Tier]) -> bool:
    """Whether every tier has prices, so that costs are in USD."""
    return all(tier.priced for tier in tiers)


def unit_cost(tiers: Sequence[Tier]) -> float:
    """What a call with 1,000 tokens in and out costs at the top tier; 0 when it is free. Scales μ across prices."""
    thousand = np.array([1000.0])
    return float(expected_costs(tiers, thousand, np.broadcast_to(thousand, (1, len(tiers))))[0, -1])


def expected_costs(tiers: Sequence[Tier], input_tokens: FloatArray, output_tokens: FloatArray) -> NDArray[np.float64]:
    """Cost of each prompt at each tier: (n,), (n, k) → float64 (n, k).

    In USD when every tier has prices. Otherwise in units of the ladder, 0 for the cheapest to 1 for the top:
    an unknown price is not a free one.
    """
    return costs_at(usd_per_token(tiers), input_tokens, output_tokens)


def costs_at(
    prices: NDArray[np.float64] | None, input_tokens: FloatArray, output_tokens: FloatArray
) -> NDArray[np.float64]:
    """The same at prices of `usd_per_token`."""
    if prices is None:
        return np.broadcast_to(np.linspace(0, 1, output_tokens.shape[1]), output_tokens.shape)
    return np.asarray(input_tokens[:, None] * prices[:, 0] + output_tokens * prices[:, 1], np.float64)


def usd_per_token(tiers: Sequence[Tier]) -> NDArray[np.float64] | None:
    """(k, 2): of a token in and of one out at each tier; None unless all have prices."""
    if not priced(tiers):
        return None
    return np.array([(tier.input_pico_usd, tier.output_pico_usd) for tier in tiers], np.float64) / PICO_PER_USD
