"""What a call costs, in integer pico-USD: the price of the day from the list, or the settings' own."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

from genai_prices import Usage as ListedUsage
from genai_prices import __version__ as list_version
from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
from genai_prices.types import ModelInfo, Provider, StartDateConstraint

from serving.errors import ConfigurationError
from serving.ledger.events import Cost
from serving.ledger.usage import Usage
from serving.price_entry import PriceEntry
from serving.tiers import PICO_PER_USD

_BATCH: Final = {"processing": "batch"}  # anything else gives the standard price without a word
_LISTED: Final = f"genai-prices {list_version}"
_OWN: Final = "tierwise.toml"
_SUGGESTED: Final = 5
_COUNTED: Final = {
    "input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok",
    "input_audio_mtok", "output_audio_mtok", "cache_audio_read_mtok",
    "web_searches_kcount", "storage_searches_kcount",
}  # fmt: skip
"""Prices of what usage counts, and of tools that a provider runs, whose fees are not in it (docs/ledger.md)."""


class PriceBook:
    """Prices by model and provider. entries: those of the settings, which win over the list."""

    def __init__(self, entries: Sequence[PriceEntry] = ()) -> None:
        self._own = {(entry.provider and entry.provider.lower(), entry.model.lower()): entry for entry in entries}

    def cost(
        self, model: str, usage: Usage | None, at: datetime, *, provider: str | None = None, batch: bool = False
    ) -> Cost | None:
        """What a call at that time costs; None where the model, its price or its usage is unknown, which is not 0.

        Long contexts have their price by the tokens in. A batch is unknown where no price of batches is listed, and so
        are audio tokens of a model without a price for them, and an answer whose tokens were not told. A fraction of a
        pico-USD is rounded half to even.
        """
        if usage is None or usage.input_tokens is None:
            return None
        entry = self._own.get((provider and provider.lower(), model.lower())) or self._own.get((None, model.lower()))
        if entry is not None:
            return _own_cost(entry, usage, batch=batch)
        found = _listed(model.lower(), provider and provider.lower())
        return None if found is None else _listed_cost(*found, usage, at, batch=batch)

    def knows(self, model: str) -> bool:
        """Whether there is any price of that name."""
        return any(name == model.lower() for _, name in self._own) or _listed(model.lower(), None) is not None


def check_model_names(models: Iterable[str], prices: PriceBook) -> None:
    """Raises ConfigurationError when one is the name of a family of models, which has no price and names no model.

    A name that is like no other, of a model of one's own, is fine: its calls are booked as unknown.
    """
    for model in models:
        if not prices.knows(model) and (members := _family(model.lower())):
            raise ConfigurationError(
                f"{model!r} is a family of models, not one of them, and has no price; "
                f"name the one that is called: {', '.join(members)}"
            )


def _own_cost(entry: PriceEntry, usage: Usage, *, batch: bool) -> Cost | None:
    price_in, price_out = entry.usd_per_mtok_in, entry.usd_per_mtok_out
    cached, written = entry.usd_per_mtok_cached_in, entry.usd_per_mtok_cache_write
    if batch:
        price_in, price_out, cached, written = entry.usd_per_mtok_batch_in, entry.usd_per_mtok_batch_out, None, None
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


@lru_cache(maxsize=4096)  # misses too: the list's own cache of names it does not have grows with every one asked for
def _listed(model: str, provider: str | None) -> tuple[Provider, ModelInfo] | None:
    providers = get_snapshot().providers
    named, _, rest = model.partition("/")
    if (
        provider is None
        and rest
        and (of := find_provider_by_id(providers, named))
        and (found := of.find_model(rest, all_providers=providers))
    ):
        return of, found  # as gateways write it: openai/gpt-4o
    if provider is None and (of := _maker(model)) is None:
        return _alike(model)
    of = of if provider is None else find_provider_by_id(providers, provider)
    found = None if of is None else of.find_model(model, all_providers=providers)
    return None if of is None or found is None else (of, found)


def _alike(model: str) -> tuple[Provider, ModelInfo] | None:
    """A name that tells no provider, where all that have it ask the same today."""
    offers = [(of, found) for of in get_snapshot().providers if (found := of.find_model(model)) is not None]
    prices = [found.get_prices(datetime.now(UTC), None) for _, found in offers]
    return offers[0] if offers and all(price == prices[0] for price in prices) else None


def _maker(model: str) -> Provider | None:
    """The provider whose names look like this one."""
    return next(
        (p for p in get_snapshot().providers if p.model_match is not None and p.model_match.is_match(model)), None
    )


def _listed_cost(provider: Provider, model: ModelInfo, usage: Usage, at: datetime, *, batch: bool) -> Cost | None:
    own = any(model is one for one in provider.models)  # of another provider's model, the list ignores the context
    if batch and not (own and _has_batch_price(model, at)):
        return None
    context = _BATCH if batch else None
    prices = model.get_prices(at, context)
    audio = {"input": usage.input_audio_tokens, "output": usage.output_audio_tokens}
    if any(tokens and getattr(prices, f"{way}_audio_mtok") is None for way, tokens in audio.items()):
        return None
    if prices.input_mtok is None and prices.output_mtok is None:
        return None
    if vars(prices).keys() - _COUNTED:  # a fee by the request, images, hours of audio: usage does not tell how many
        return None
    if usage.output_tokens is None and prices.output_mtok:
        return None
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
        total = model.calc_price(listed, provider, genai_request_timestamp=at, price_context=context).total_price
    except ValueError:  # tokens that the list prices together, told apart only in part: cached ones of audio
        return None
    return Cost(
        pico_usd=int((total * PICO_PER_USD).to_integral_value()), source=_LISTED, dated=_dated(model, at, batch=batch)
    )


def _has_batch_price(model: ModelInfo, at: datetime) -> bool:
    return any(
        variant.when == _BATCH and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    )


def _dated(model: ModelInfo, at: datetime, *, batch: bool) -> str | None:
    """The day since which the model has the price, where the list says so."""
    if batch:
        constraints = [variant.constraint for variant in model.price_variants or () if variant.when == _BATCH]
    else:
        constraints = [price.constraint for price in model.prices] if isinstance(model.prices, list) else []
    for constraint in reversed(constraints):
        if constraint is None or constraint.active(at):
            return constraint.start_date.isoformat() if isinstance(constraint, StartDateConstraint) else None
    return None


def _family(name: str) -> list[str]:
    """Names of its maker's models that have all words of `name` and more."""
    maker, words = _maker(name), set(name.replace(".", "-").split("-"))
    names = [] if maker is None else [model.id for model in maker.models]
    members = [one for one in names if words < set(one.lower().replace(".", "-").split("-"))]
    return get_close_matches(name, members, n=_SUGGESTED, cutoff=0)
