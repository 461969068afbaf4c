"""What does a token cost that a provider has in its cache, beside one that it has not?"""

from datetime import UTC, datetime
from typing import Final

from serving.ledger.prices import PriceBook
from serving.ledger.usage import Usage

UNKNOWN: Final = 0.5
"""Of a model that has no price here: the smallest discount of a provider that has a cache (gpt-4o in genai-prices;
later models have .25 and .1), so that no more is claimed for staying than is there."""
_TOKENS: Final = 1000


def cached_share(prices: PriceBook, model: str) -> float:
    """As a share of the price of a new token in, today; 1 where the model is listed without a price for cached ones."""
    now = datetime.now(UTC)
    new = prices.cost(model, Usage(input_tokens=_TOKENS, output_tokens=0), now)
    read = prices.cost(model, Usage(input_tokens=_TOKENS, cached_input_tokens=_TOKENS, output_tokens=0), now)
    if new is None or read is None or not new.pico_usd:
        return UNKNOWN
    return min(read.pico_usd / new.pico_usd, 1.0)
