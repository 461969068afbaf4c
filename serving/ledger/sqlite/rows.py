"""An event as a row of the table, and back."""

from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final

from serving.ledger.events import SAVINGS, Cost, Event
from serving.ledger.usage import Usage

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PLAIN: Final = (
    "tenant", "api_key", "key", "kind", "status", "request_id", "completion_id", "decision_id", "team", "feature",
    "user", "session_id", "model_asked", "model", "provider", "tier", "latency_ms", "processing", "usage_estimated",
    "cached", "wasted", "error",
)  # fmt: skip
_USAGE: Final = tuple(Usage.model_fields)
_plain, _tokens = attrgetter(*_PLAIN), attrgetter(*_USAGE)
COLUMNS: Final = (*_PLAIN, *_USAGE, "time_us", "cost_pico_usd", "price_source", "price_dated",
                  *(f"saved_{kind}" for kind in SAVINGS))  # fmt: skip


def microseconds(time: datetime) -> int:
    """Since 1970 in UTC, exactly."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def time_of(time_us: int) -> datetime:
    """The time that is so many microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=time_us)


def row_of(event: Event) -> tuple[Any, ...]:
    """The values of `COLUMNS`."""
    usage, cost = event.usage, event.cost
    return (
        *_plain(event),
        *((None,) * len(_USAGE) if usage is None else _tokens(usage)),
        microseconds(event.time),
        *((None, None, None) if cost is None else (cost.pico_usd, cost.source, cost.dated)),
        *(event.saved.get(kind) for kind in SAVINGS),
    )


def event_of(row: tuple[Any, ...]) -> Event:
    """The event that gave these values of `COLUMNS`."""
    values = dict(zip(COLUMNS, row, strict=True))
    usage = {name: values[name] for name in _USAGE if values[name] is not None}
    cost = values["cost_pico_usd"]
    return Event(
        **{name: values[name] for name in _PLAIN if name not in ("usage_estimated", "cached", "wasted")},
        **{name: bool(values[name]) for name in ("usage_estimated", "cached", "wasted")},
        time=time_of(values["time_us"]),
        usage=Usage(**usage) if usage else None,
        cost=None if cost is None else Cost(pico_usd=cost, source=values["price_source"], dated=values["price_dated"]),
        saved={kind: saved for kind in SAVINGS if (saved := values[f"saved_{kind}"]) is not None},
    )
