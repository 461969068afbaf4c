"""What was spent, on what and by whom, and what was saved: sums of the ledger over the last days."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final, Literal

from serving.ledger.events import SAVINGS, SavingKind
from serving.ledger.store import LedgerStore, Totals
from serving.tiers import PICO_PER_USD

Dimension = Literal["model", "tier", "feature", "team", "user", "api_key", "kind"]
DIMENSIONS: Final[tuple[Dimension, ...]] = ("model", "tier", "feature", "team", "user", "api_key", "kind")
MOST_DAYS: Final = 3660
_TOP: Final = 10
_MONTH_DAYS: Final = 30


@dataclass(frozen=True)
class Line:
    """A part of the whole: of a day, or of a value of a dimension, None where events have none."""

    name: str | None
    cost_pico_usd: int
    requests: int
    unpriced: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Savings:
    """By how much more the same answers would have cost without each, in pico-USD, and what was spent to save it:
    judge calls, embeddings, and attempts whose answer nobody got."""

    by: dict[SavingKind, int]
    spent_pico_usd: int

    @property
    def net_pico_usd(self) -> int:
        """What is left; negative where saving cost more than it saved."""
        return sum(self.by.values()) - self.spent_pico_usd


@dataclass(frozen=True)
class Report:
    """`days` up to and including `until`, in UTC. The lines of every list add up to the total, to the pico-USD, but for
    the lists of the top, which are cut. since: the first day asked for. first: the first day with an event, if any."""

    days: int
    since: date
    until: date
    first: date | None
    total: Totals
    daily: tuple[Line, ...]
    by_model: tuple[Line, ...]
    by_tier: tuple[Line, ...]
    top_features: tuple[Line, ...]
    top_teams: tuple[Line, ...]
    by: tuple[Dimension, tuple[Line, ...]] | None

    @property
    def savings(self) -> Savings:
        """What routing, cache, compression, limits and batches saved."""
        by = dict(zip(SAVINGS, self.total.saved_pico_usd, strict=True))
        return Savings(by, self.total.spent_on_saving_pico_usd)

    @property
    def cost_per_request_pico_usd(self) -> Decimal | None:
        """The mean over requests whose cost is known; None without one."""
        known = self.total.requests - self.total.unpriced_requests
        return Decimal(self.total.cost_pico_usd) / known if known else None

    @property
    def projected_month_pico_usd(self) -> Decimal | None:
        """Thirty days like those since the first event of the period; None without one."""
        if self.first is None:
            return None
        return Decimal(self.total.cost_pico_usd) * _MONTH_DAYS / ((self.until - self.first).days + 1)


def make_report(
    store: LedgerStore, days: int, until: date, *, by: Dimension | None = None, tenant: str | None = None
) -> Report:
    """The report of `days` days up to and including `until`; of all tenants, or of one. Raises LedgerError."""
    since = until - timedelta(days=days - 1)

    def lines(dimension: str) -> tuple[Line, ...]:
        return _by_cost(store.totals(dimension, since, until, tenant=tenant))

    daily = store.totals("total", since, until, tenant=tenant, daily=True)
    return Report(
        days=days,
        since=since,
        until=until,
        first=next((of.day for of in daily if of.events), None),
        total=_sum(daily),
        daily=tuple(_line(None if of.day is None else of.day.isoformat(), of) for of in daily if of.events),
        by_model=lines("model"),
        by_tier=lines("tier"),
        top_features=lines("feature")[:_TOP],
        top_teams=lines("team")[:_TOP],
        by=None if by is None else (by, lines(by)),
    )


def usd(pico_usd: int | Decimal) -> Decimal:
    """In dollars, exactly, or to the nearest pico-USD."""
    return (Decimal(pico_usd) / PICO_PER_USD).quantize(Decimal(1) / PICO_PER_USD).normalize() + Decimal(0)


def _by_cost(parts: Sequence[Totals]) -> tuple[Line, ...]:
    found = [_line(of.value, of) for of in parts if of.events]
    return tuple(sorted(found, key=lambda line: (-line.cost_pico_usd, -line.requests, line.name or "")))


def _line(name: str | None, of: Totals) -> Line:
    return Line(name, of.cost_pico_usd, of.requests, of.unpriced, of.input_tokens, of.output_tokens)


def _sum(parts: Sequence[Totals]) -> Totals:
    counts = {name: sum(getattr(of, name) for of in parts) for name in Totals._fields if name not in _NOT_COUNTS}
    saved = tuple(sum(of.saved_pico_usd[i] for of in parts) for i in range(len(SAVINGS)))
    return Totals(day=None, value=None, saved_pico_usd=saved, **counts)


_NOT_COUNTS: Final = ("day", "value", "saved_pico_usd")
