"""What the list of published prices says: which model a name means, and what its tokens cost on a day.

The list's own arithmetic takes .2 ms of CPU a call, on the path of every reply. That of tokens of text is done here,
and a test holds the two together for every model of the list; that of audio is left to the list.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from functools import lru_cache
from typing import Final, NamedTuple

from genai_prices import Usage as ListedUsage
from genai_prices import __version__ as list_version
from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TieredPrices,
)

from serving.ledger.events import Cost
from serving.ledger.usage import Usage
from serving.tiers import PICO_PER_USD

_SOURCE: Final = f"genai-prices {list_version}"
_SUGGESTED: Final = 5
_PROCESSING: Final = ("processing", "service_tier", "speed")
"""By which of its keys the list tells one way of being served from another."""
_COUNTED: Final = {
    "input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok",
    "input_audio_mtok", "output_audio_mtok", "cache_audio_read_mtok",
    "web_searches_kcount", "storage_searches_kcount",
}  # fmt: skip
"""Prices of what usage counts, and of tools that a provider runs, whose fees are not in it (docs/ledger.md)."""


class Listed(NamedTuple):
    """A model of the list, as one provider serves it."""

    provider: Provider
    model: ModelInfo

    def cost(self, usage: Usage, at: datetime, processing: str | None) -> Cost | None:
        """See `PriceBook.cost`."""
        variant = None if processing is None else self._variant(processing, at)
        if processing is not None and variant is None:
            return None
        context = None if variant is None else variant.when
        prices = self.model.get_prices(at, context)
        if not _all_counted(prices, usage) or (usage.output_tokens is None and prices.output_mtok):
            return None
        if usage.input_audio_tokens or usage.output_audio_tokens:
            total = self._cost_with_audio(usage, at, context)
        else:
            total = _cost_of_text(vars(prices), usage)
        if total is None:
            return None
        return Cost(
            pico_usd=int((total * PICO_PER_USD).to_integral_value()),
            source=_SOURCE if processing is None else f"{_SOURCE}, {processing}",
            dated=_since(self.model.prices if variant is None else [variant], at),
        )

    def _variant(self, processing: str, at: datetime) -> PriceVariant | None:
        # Of a model that is another provider's, the list ignores how it was served.
        if all(self.model is not one for one in self.provider.models):
            return None
        for variant in self.model.price_variants or ():
            is_it = len(variant.when) == 1 and any(variant.when.get(key) == processing for key in _PROCESSING)
            if is_it and (variant.constraint is None or variant.constraint.active(at)):
                return variant
        return None

    def _cost_with_audio(self, usage: Usage, at: datetime, context: Mapping[str, str] | None) -> Decimal | None:
        listed = ListedUsage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cached_input_tokens or None,
            cache_write_tokens=usage.cache_write_tokens or None,
            cache_write_1h_tokens=usage.cache_write_1h_tokens or None,
            input_audio_tokens=usage.input_audio_tokens or None,
            output_tokens=usage.output_tokens,
            output_audio_tokens=usage.output_audio_tokens or None,
        )
        try:
            priced = self.model.calc_price(listed, self.provider, genai_request_timestamp=at, price_context=context)
        except ValueError:  # tokens that are priced together, told apart only in part: cached ones of audio
            return None
        return priced.total_price


@lru_cache(maxsize=4096)  # misses too: the list's own cache of names it does not have grows with every one asked for
def listed(model: str, provider: str | None) -> Listed | None:
    """The model of that name, in lower case; without a provider, by the form of the name, or where all ask the same."""
    providers = get_snapshot().providers
    named, _, rest = model.partition("/")
    if (
        provider is None
        and rest
        and (of := find_provider_by_id(providers, named))
        and (found := of.find_model(rest, all_providers=providers))
    ):
        return Listed(of, found)  # as gateways write it: openai/gpt-4o
    if provider is None and (of := _maker(model)) is None:
        return _alike(model)
    of = of if provider is None else find_provider_by_id(providers, provider)
    found = None if of is None else of.find_model(model, all_providers=providers)
    return None if of is None or found is None else Listed(of, found)


def family(name: str) -> list[str]:
    """Names of its maker's models that have all words of `name` and more; in lower case."""
    maker, words = _maker(name), set(name.replace(".", "-").split("-"))
    names = [] if maker is None else [model.id for model in maker.models]
    members = [one for one in names if words < set(one.lower().replace(".", "-").split("-"))]
    return get_close_matches(name, members, n=_SUGGESTED, cutoff=0)


def _alike(model: str) -> Listed | None:
    """A name that tells no provider, where all that have it ask the same today."""
    offers = [Listed(of, found) for of in get_snapshot().providers if (found := of.find_model(model)) is not None]
    prices = [found.get_prices(datetime.now(UTC), None) for _, found in offers]
    return offers[0] if offers and all(price == prices[0] for price in prices) else None


def _maker(model: str) -> Provider | None:
    """The provider whose names look like this one."""
    return next(
        (p for p in get_snapshot().providers if p.model_match is not None and p.model_match.is_match(model)), None
    )


def _all_counted(prices: ModelPrice, usage: Usage) -> bool:
    """Whether usage tells all that the price is by: not a fee by the request, images, hours of audio."""
    audio = {"input": usage.input_audio_tokens, "output": usage.output_audio_tokens}
    if any(tokens and getattr(prices, f"{way}_audio_mtok") is None for way, tokens in audio.items()):
        return False
    if prices.input_mtok is None and prices.output_mtok is None:
        return False
    return vars(prices).keys() <= _COUNTED


def _cost_of_text(prices: Mapping[str, Decimal | TieredPrices | None], usage: Usage) -> Decimal:
    """In USD. What has no price of its own has that of what it is a part of. From where a long context begins, all
    tokens have its price."""
    total_in = usage.input_tokens or 0
    read, written = usage.cached_input_tokens or 0, usage.cache_write_tokens or 0
    for_an_hour = usage.cache_write_1h_tokens or 0

    def price(*names: str) -> Decimal:
        found = next((price for name in names if (price := prices.get(name)) is not None), Decimal(0))
        if isinstance(found, TieredPrices):
            return next((tier.price for tier in reversed(found.tiers) if total_in > tier.start), found.base)
        return found

    written_at = ("cache_write_mtok", "input_mtok")
    usd = (total_in - read - written) * price("input_mtok") + (usage.output_tokens or 0) * price("output_mtok")
    if read:
        usd += read * price("cache_read_mtok", "input_mtok")
    if written:
        usd += (written - for_an_hour) * price(*written_at) + for_an_hour * price("cache_write_1h_mtok", *written_at)
    return usd / 1_000_000


def _since(dated: ModelPrice | list[ConditionalPrice] | list[PriceVariant], at: datetime) -> str | None:
    """The day since which the price holds, where the list says so."""
    for constraint in reversed([one.constraint for one in dated] if isinstance(dated, list) else []):
        if constraint is None or constraint.active(at):
            return constraint.start_date.isoformat() if isinstance(constraint, StartDateConstraint) else None
    return None
