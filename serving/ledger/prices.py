"""What a call costs, in integer pico-USD: the price of the day from the list, or the settings' own."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from serving.errors import ConfigurationError
from serving.ledger.events import Cost
from serving.ledger.price_list import family, listed
from serving.ledger.usage import Usage
from serving.price_entry import PriceEntry
from serving.tiers import Tier

BATCH: Final = "batch"
_OWN: Final = "tierwise.toml"
_LADDER: Final = "ladder"


class PriceBook:
    """Prices by model and provider. entries: those of the settings, which win over the list. ladder: tiers in service,
    whose prices count for models that neither has."""

    def __init__(self, entries: Sequence[PriceEntry] = (), ladder: Callable[[], Sequence[Tier]] = tuple) -> None:
        self._ladder = ladder
        self._own = {(entry.provider and entry.provider.lower(), entry.model.lower()): entry for entry in entries}

    def cost(
        self,
        model: str,
        usage: Usage | None,
        at: datetime,
        *,
        provider: str | None = None,
        processing: str | None = None,
    ) -> Cost | None:
        """What a call at that time costs; None where the model, its price or its usage is unknown, which is not 0.

        processing: how it was served, where that has a price of its own: `batch`, or a service tier such as `flex`.
        Unknown where no such price is listed. Long contexts have their price by the tokens in. Unknown are also audio
        tokens of a model without a price for them, and an answer whose tokens were not told. A fraction of a pico-USD
        is rounded half to even.
        """
        if usage is None or usage.input_tokens is None:
            return None
        model, provider = model.lower(), provider and provider.lower()
        entry = self._own.get((provider, model)) or self._own.get((None, model))
        if entry is not None:
            return _own_cost(entry, usage, processing)
        found = listed(model, provider)
        if found is not None:
            return found.cost(usage, at, processing)
        tier = next((tier for tier in self._ladder() if model in map(str.lower, tier.models)), None)
        return None if tier is None or processing is not None else _ladder_cost(tier, usage)

    def knows(self, model: str) -> bool:
        """Whether there is any price of that name."""
        return any(name == model.lower() for _, name in self._own) or listed(model.lower(), None) is not None


def check_model_names(models: Iterable[str], prices: PriceBook) -> None:
    """Raises ConfigurationError when one is the name of a family of models, which has no price and names no model.

    A name that is like no other, of a model of one's own, is fine: its calls are booked as unknown.
    """
    for model in models:
        if not prices.knows(model) and (members := family(model.lower())):
            raise ConfigurationError(
                f"{model!r} is a family of models, not one of them, and has no price; "
                f"name the one that is called: {', '.join(members)}"
            )


def _ladder_cost(tier: Tier, usage: Usage) -> Cost | None:
    """By the price of a tier, which knows tokens in and out and no more."""
    price_in, price_out = tier.input_pico_usd, tier.output_pico_usd
    if price_in is None or price_out is None or usage.input_tokens is None:
        return None
    if usage.output_tokens is None and price_out:
        return None
    return Cost(pico_usd=usage.input_tokens * price_in + (usage.output_tokens or 0) * price_out, source=_LADDER)


def _own_cost(entry: PriceEntry, usage: Usage, processing: str | None) -> Cost | None:
    price_in, price_out = entry.usd_per_mtok_in, entry.usd_per_mtok_out
    cached, written = entry.usd_per_mtok_cached_in, entry.usd_per_mtok_cache_write
    if processing == BATCH:
        price_in, price_out, cached, written = entry.usd_per_mtok_batch_in, entry.usd_per_mtok_batch_out, None, None
    elif processing is not None:
        return None
    if price_in is None or price_out is None or usage.input_tokens is None:
        return None
    if usage.output_tokens is None and price_out:
        return None
    read, write = usage.cached_input_tokens or 0, usage.cache_write_tokens or 0
    pico = (
        (usage.input_tokens - read - write) * price_in
        + read * (price_in if cached is None else cached)
        + write * (price_in if written is None else written)
        + (usage.output_tokens or 0) * price_out
    )
    return Cost(pico_usd=pico, source=_OWN)
