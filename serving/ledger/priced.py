"""What a call cost, and what was saved by choosing its model and its way of being served."""

from datetime import datetime
from typing import Final, NamedTuple

from serving.ledger.events import Cost, SavingKind
from serving.ledger.prices import BATCH, PriceBook
from serving.ledger.usage import Usage

_STANDARD: Final = ("auto", "default", "on_demand", "standard")
"""Service tiers that are none: what providers call the usual one."""


class Priced(NamedTuple):
    """cost: None is unknown. saved: pico-USD by what saved them; without a kind nothing is claimed."""

    cost: Cost | None
    saved: dict[SavingKind, int]


def price_call(
    prices: PriceBook,
    model: str,
    usage: Usage | None,
    at: datetime,
    *,
    provider: str | None = None,
    processing: str | None = None,
    paid: Cost | None = None,
    instead_of: str | None = None,
) -> Priced:
    """The cost by the price of the day, or what was paid.

    processing: `batch` or a service tier. instead_of: the top tier's model, of a call that a decision chose: routing
    saved what that would have cost for the same tokens, less what the chosen one costs, both at the standard price, or
    less what was paid. A batch saved what it is cheaper by than that. Only what is known is claimed.
    """
    processing = None if processing is None or processing.lower() in _STANDARD else processing.lower()
    cost = paid or prices.cost(model, usage, at, provider=provider, processing=processing)
    standard = cost
    if processing is not None:
        standard = None if paid else prices.cost(model, usage, at, provider=provider)
    saved: dict[SavingKind, int] = {}
    if cost is not None and standard is not None:
        top = None if instead_of is None else prices.cost(instead_of, usage, at)
        if top is not None:
            saved["routing"] = top.pico_usd - standard.pico_usd
        if processing == BATCH:
            saved["batch"] = standard.pico_usd - cost.pico_usd
    return Priced(cost, saved)
