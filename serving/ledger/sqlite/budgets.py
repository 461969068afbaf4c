"""Budgets in the ledger's file: what is spent follows the events, in the transaction that writes them.

A reservation holds an amount for a call under way. It goes when the call is told, or is released, or expires with the
process that made it; a call of unknown cost keeps it until the period ends, since unknown is not 0.
"""

import sqlite3
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from serving.ledger.budgets import SCOPES, Budget, BudgetStatus, Spender
from serving.ledger.events import Event
from serving.ledger.sqlite.money import PICO, USD, joined, split
from serving.ledger.sqlite.rollups import UNSET, Rollups, day_of
from serving.ledger.sqlite.rows import microseconds
from serving.tiers import PICO_PER_USD

_COLUMNS: Final = ("tenant", "scope", "value", "period", "zone", "limit_pico_usd", "hard", "alert_at")
_SAME: Final = "tenant = :tenant AND scope = :scope AND value = :value AND period = :period"
_OF: Final = " OR ".join(f"(scope = '{scope}' AND value = :{scope})" for scope in SCOPES)
_FOR: Final = f"SELECT id, {', '.join(_COLUMNS)} FROM budgets WHERE tenant = :tenant AND ({_OF})"
_EVERY: Final = f"SELECT id, {', '.join(_COLUMNS)} FROM budgets ORDER BY tenant, scope, value, period"
_SPENT: Final = "SELECT spent_usd, spent_pico, told FROM budget_spend WHERE budget = ? AND begin_us = ?"
_RESERVED: Final = (
    "SELECT COALESCE(SUM(pico_usd), 0) FROM reservations WHERE budget = ? AND begin_us = ? AND expires_us > ?"
)

_SUM_OF_DAYS: Final = (
    f"SELECT SUM(cost{USD}), SUM(cost{PICO}) FROM rollups "
    "WHERE dimension = ? AND day >= ? AND day < ? AND tenant = ? AND value = ?"
)
_SUM_OF_EVENTS: Final = (
    f"SELECT SUM(cost_pico_usd / {PICO_PER_USD}), SUM(cost_pico_usd % {PICO_PER_USD}) FROM events "
    "WHERE time_us >= ? AND time_us < ? AND tenant = ?"
)


def put(connection: sqlite3.Connection, budget: Budget) -> None:
    """Set a budget, or change the one of the same period."""
    values = budget.model_dump()
    changed = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[4:])
    connection.execute(
        f"INSERT INTO budgets ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)}) "
        f"ON CONFLICT (tenant, scope, value, period) DO UPDATE SET {changed}",
        values,
    )
    (id_,) = connection.execute(f"SELECT id FROM budgets WHERE {_SAME}", values).fetchone()
    connection.execute("DELETE FROM budget_spend WHERE budget = ?", (id_,))  # counted again: the zone may be another


def remove(connection: sqlite3.Connection, budget: Budget) -> bool:
    """Whether there was one."""
    found = connection.execute(f"SELECT id FROM budgets WHERE {_SAME}", budget.model_dump()).fetchone()
    for table, column in (("reservations", "budget"), ("budget_spend", "budget"), ("budgets", "id")):
        connection.execute(f"DELETE FROM {table} WHERE {column} = ?", found or (None,))
    return found is not None


def every(connection: sqlite3.Connection) -> list[Budget]:
    """All budgets."""
    return [budget for _, budget in map(_budget, connection.execute(_EVERY))]


def status(connection: sqlite3.Connection, sums: Rollups, now: datetime) -> list[BudgetStatus]:
    """All budgets in the period that it is now; writes what a period begins with."""
    rows = connection.execute(_EVERY).fetchall()
    return [_status(connection, sums, number, budget, now) for number, budget in map(_budget, rows)]


def reserve(
    connection: sqlite3.Connection,
    sums: Rollups,
    id_: str,
    who: Spender,
    pico_usd: int,
    now: datetime,
    ttl: timedelta,
) -> BudgetStatus | None:
    """Hold the amount against every hard budget of the spender, or against none: then the one that is used up."""
    expires = microseconds(now + ttl)
    held = []
    for number, budget in _matching(connection, who):
        found = _status(connection, sums, number, budget, now)
        if budget.hard and (found.left_pico_usd < pico_usd or found.left_pico_usd <= 0):
            return found
        if budget.hard:
            begin, _ = budget.bounds(now)
            held.append((id_, who.tenant, number, microseconds(begin), pico_usd, expires))
    connection.execute("DELETE FROM reservations WHERE expires_us <= ?", (microseconds(now),))
    connection.executemany("INSERT OR REPLACE INTO reservations VALUES (?, ?, ?, ?, ?, ?)", held)
    return None


def release(connection: sqlite3.Connection, id_: str, tenant: str) -> None:
    """Let go of what was held for a call that is not made."""
    connection.execute("DELETE FROM reservations WHERE id = ? AND tenant = ?", (id_, tenant))


def keep(connection: sqlite3.Connection, id_: str, tenant: str) -> None:
    """Hold it until the period ends: what the call cost is unknown."""
    connection.execute("UPDATE reservations SET expires_us = ? WHERE id = ? AND tenant = ?", (2**62, id_, tenant))


def spend(connection: sqlite3.Connection, sums: Rollups, event: Event, before: Event | None) -> list[BudgetStatus]:
    """Count an event that was just written, in place of what it was before; gives budgets that are to be told of."""
    to_tell = []
    who = Spender(event.tenant, event.team, event.feature, event.user, event.api_key)
    change = _cost(event) - (0 if before is None else _cost(before))
    for number, budget in _matching(connection, who):
        begin, end = budget.bounds(event.time)
        begin_us = microseconds(begin)
        row = connection.execute(_SPENT, (number, begin_us)).fetchone()
        if row is None:
            row = _begin(connection, sums, number, budget, begin, end)  # with the event in it
        else:
            row = (*split(joined(row[0], row[1]) + change), row[2])
            _set(connection, number, begin_us, row)
        spent, told = joined(row[0], row[1]), row[2]
        level = (spent >= budget.alert_at * budget.limit_pico_usd) + (spent >= budget.limit_pico_usd)
        if level > told:
            _set(connection, number, begin_us, (row[0], row[1], level))
            to_tell.append(BudgetStatus(budget, spent, 0, end))
    _settle(connection, event)
    return to_tell


def _settle(connection: sqlite3.Connection, event: Event) -> None:
    if event.status == "started" or event.wasted:  # of a wasted attempt, another follows that needs what is held
        return
    for id_ in {event.decision_id or event.key, event.key}:
        (keep if event.cost is None else release)(connection, id_, event.tenant)


def _matching(connection: sqlite3.Connection, who: Spender) -> list[tuple[int, Budget]]:
    return [_budget(row) for row in connection.execute(_FOR, asdict(who)).fetchall()]


def _budget(row: tuple[Any, ...]) -> tuple[int, Budget]:
    number, *values = row
    return number, Budget(**dict(zip(_COLUMNS, values, strict=True)))


def _status(connection: sqlite3.Connection, sums: Rollups, number: int, budget: Budget, now: datetime) -> BudgetStatus:
    begin, end = budget.bounds(now)
    at = (number, microseconds(begin))
    row = connection.execute(_SPENT, at).fetchone() or _begin(connection, sums, number, budget, begin, end)
    (reserved,) = connection.execute(_RESERVED, (*at, microseconds(now.astimezone(UTC)))).fetchone()
    return BudgetStatus(budget, joined(row[0], row[1]), reserved, end)


def _begin(
    connection: sqlite3.Connection, sums: Rollups, number: int, budget: Budget, begin: datetime, end: datetime
) -> tuple[int, int, int]:
    """What the period amounts to, the first time it is asked for: whole days of UTC by their sums, which a month of
    millions of events needs, and what is before and after them by the events."""
    sums.write(connection)
    first = day_of(begin) + (begin.time() != time.min)
    last = max(day_of(end), first)  # not in it
    whole = [datetime.combine(date.fromordinal(day), time.min, UTC) for day in (first, last)]
    edges = [(begin, end)] if first == last else [(begin, whole[0]), (whole[1], end)]
    of_scope = f"{_SUM_OF_EVENTS} AND {budget.scope} = ?"
    dimension, value = ("total", UNSET) if budget.scope == "tenant" else (budget.scope, budget.value)
    parts = connection.execute(_SUM_OF_DAYS, (dimension, first, last, budget.tenant, value)).fetchall()
    for bounds in edges:
        at = tuple(map(microseconds, bounds))
        parts += connection.execute(of_scope, (*at, budget.tenant, budget.value)).fetchall()
    row = (*split(sum(joined(*part) for part in parts)), 0)
    _set(connection, number, microseconds(begin), row)
    return row


def _set(connection: sqlite3.Connection, number: int, begin_us: int, row: tuple[int, int, int]) -> None:
    connection.execute("INSERT OR REPLACE INTO budget_spend VALUES (?, ?, ?, ?, ?)", (number, begin_us, *row))


def _cost(event: Event) -> int:
    return 0 if event.cost is None else event.cost.pico_usd
