"""Sums by day, tenant and dimension, kept in the transaction that writes the events they sum."""

import sqlite3
from collections import defaultdict
from datetime import datetime
from typing import Final

from serving.ledger.events import SAVINGS, Event
from serving.ledger.sqlite.money import PICO, USD, added, split

DIMENSIONS: Final = ("total", "kind", "model", "tier", "feature", "team", "user", "api_key")
COUNTS: Final = (
    "requests", "unpriced_requests", "events", "unpriced", "unmetered", "estimated", "input_tokens", "output_tokens",
)  # fmt: skip
MONEY: Final = ("cost", "spent_on_saving", *(f"saved_{kind}" for kind in SAVINGS))
SUMMED: Final = (*COUNTS, *MONEY)
UNSET: Final = ""
"""The value of a dimension that an event does not have: no name is empty."""

_Key = tuple[str, int, str, str]


class Rollups:
    """What a group of events adds to the sums; nothing is written before `write`."""

    def __init__(self) -> None:
        self._sums: defaultdict[_Key, list[int]] = defaultdict(lambda: [0] * len(SUMMED))

    def add(self, event: Event, sign: int = 1) -> None:
        """Count an event in; with sign -1, take out one that was counted."""
        amounts = [(i, sign * amount) for i, amount in enumerate(_amounts(event)) if amount]
        day = day_of(event.time)
        for dimension in DIMENSIONS:
            value = UNSET if dimension == "total" else getattr(event, dimension) or UNSET
            sums = self._sums[dimension, day, event.tenant, value]
            for i, amount in amounts:
                sums[i] += amount

    def write(self, connection: sqlite3.Connection) -> None:
        """Add the sums to the table, and start anew."""
        connection.executemany(_UPSERT, (_row(key, sums) for key, sums in self._sums.items() if any(sums)))
        self._sums.clear()


def day_of(time: datetime) -> int:
    """Days since 0001-01-01, of the day in UTC that the time is on."""
    return time.date().toordinal()


def _amounts(event: Event) -> tuple[int, ...]:
    """The values of `SUMMED`."""
    cost = 0 if event.cost is None else event.cost.pico_usd
    usage = event.usage
    costs_nothing = event.kind == "cache_hit"  # no call was made: nothing to price or to meter
    on_saving = event.wasted or event.kind in ("judge", "embedding")
    request = event.kind in ("call", "cache_hit", "batch_line") and not event.wasted
    unpriced = event.cost is None and not costs_nothing
    return (
        request,
        request and unpriced,
        1,
        unpriced,
        not costs_nothing and not _metered(event),
        event.usage_estimated,
        0 if usage is None else usage.input_tokens or 0,
        0 if usage is None else usage.output_tokens or 0,
        cost,
        cost if on_saving else 0,
        *(event.saved.get(kind, 0) for kind in SAVINGS),
    )


def _metered(event: Event) -> bool:
    usage = event.usage
    if usage is None or usage.input_tokens is None:
        return False
    return usage.output_tokens is not None or event.kind == "embedding"


def _row(key: _Key, sums: list[int]) -> tuple[str | int, ...]:
    money = (part for amount in sums[len(COUNTS) :] for part in split(amount))
    return (*key, *sums[: len(COUNTS)], *money)


_COLUMNS: Final = (
    "dimension",
    "day",
    "tenant",
    "value",
    *COUNTS,
    *(f"{m}{part}" for m in MONEY for part in (USD, PICO)),
)
_UPSERT: Final = (
    f"INSERT INTO rollups ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    "ON CONFLICT (dimension, day, tenant, value) DO UPDATE SET "
    + ", ".join([*(f"{name} = {name} + excluded.{name}" for name in COUNTS), *map(added, MONEY)])
)
