"""Budgets in the ledger's file: what is spent follows the events, in the transaction that writes them.

A reservation holds an amount for a call under way. It goes when the call is told, or is released, or expires with the
process that made it; a call of unknown cost keeps it until the period ends, since unknown is not 0.
"""

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from serving.ledger.budgets import SCOPES, Budget, BudgetStatus, Spender
from serving.ledger.events import Event
from serving.ledger.sqlite.money import joined, split
from serving.ledger.sqlite.rows import microseconds, time_of
from serving.tiers import PICO_PER_USD

_COLUMNS: Final = ("tenant", "scope", "value", "period", "zone", "limit_pico_usd", "hard", "alert_at")
_SAME: Final = "tenant = :tenant AND scope = :scope AND value = :value AND period = :period"
_OF: Final = " OR ".join(f"(scope = '{scope}' AND value = :{scope})" for scope in SCOPES)
_FOR: Final = f"SELECT id, {', '.join(_COLUMNS)} FROM budgets WHERE tenant = :tenant AND ({_OF})"
_SPENT: Final = "SELECT spent_usd, spent_pico, told FROM budget_spend WHERE budget = ? AND begin_us = ?"
_RESERVED: Final = (
    "SELECT COALESCE(SUM(pico_usd), 0) FROM reservations WHERE budget = ? AND begin_us = ? AND expires_us > ?"
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
    query = f"SELECT id, {', '.join(_COLUMNS)} FROM budgets ORDER BY tenant, scope, value, period"
    return [budget for _, budget in map(_budget, connection.execute(query))]


def status(connection: sqlite3.Connection, now: datetime) -> list[BudgetStatus]:
    """All budgets in the period that it is now; writes what a period begins with."""
    query = f"SELECT id, {', '.join(_COLUMNS)} FROM budgets ORDER BY tenant, scope, value, period"
    return [_status(connection, id_, budget, now) for id_, budget in map(_budget, connection.execute(query).fetchall())]


def reserve(
    connection: sqlite3.Connection, id_: str, who: Spender, pico_usd: int, now: datetime, ttl: timedelta
) -> BudgetStatus | None:
    """Hold the amount against every hard budget of the spender, or against none: then the one that is used up."""
    expires = microseconds(now + ttl)
    held = []
    for number, budget in _matching(connection, who):
        found = _status(connection, number, budget, now)
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


def spend(connection: sqlite3.Connection, event: Event, before: Event | None) -> list[BudgetStatus]:
    """Count an event that was just written, in place of what it was before; gives budgets that are to be told of."""
    to_tell = []
    who = Spender(event.tenant, event.team, event.feature, event.user)
    change = _cost(event) - (0 if before is None else _cost(before))
    for number, budget in _matching(connection, who):
        begin, end = (microseconds(bound) for bound in budget.bounds(event.time))
        row = connection.execute(_SPENT, (number, begin)).fetchone()
        if row is None:
            row = _begin(connection, number, budget, begin, end)  # with the event in it
        else:
            row = (*split(joined(row[0], row[1]) + change), row[2])
            _set(connection, number, begin, row)
        spent, told = joined(row[0], row[1]), row[2]
        level = (spent >= budget.alert_at * budget.limit_pico_usd) + (spent >= budget.limit_pico_usd)
        if level > told:
            _set(connection, number, begin, (row[0], row[1], level))
            to_tell.append(BudgetStatus(budget, spent, 0, time_of(end)))
    _settle(connection, event)
    return to_tell


def _settle(connection: sqlite3.Connection, event: Event) -> None:
    if event.status == "started":
        return
    for id_ in {event.decision_id, event.key} - {None}:
        if event.cost is None and event.status == "ok":
            connection.execute(
                "UPDATE reservations SET expires_us = ? WHERE id = ? AND tenant = ?", (2**62, id_, event.tenant)
            )
        else:
            connection.execute("DELETE FROM reservations WHERE id = ? AND tenant = ?", (id_, event.tenant))


def _matching(connection: sqlite3.Connection, who: Spender) -> list[tuple[int, Budget]]:
    asked = {"tenant": who.tenant, "team": who.team, "feature": who.feature, "user": who.user}
    return [_budget(row) for row in connection.execute(_FOR, asked).fetchall()]


def _budget(row: tuple[Any, ...]) -> tuple[int, Budget]:
    number, *values = row
    return number, Budget(**dict(zip(_COLUMNS, values, strict=True)))


def _status(connection: sqlite3.Connection, number: int, budget: Budget, now: datetime) -> BudgetStatus:
    begin, end = budget.bounds(now)
    at = (number, microseconds(begin))
    row = connection.execute(_SPENT, at).fetchone() or _begin(
        connection, number, budget, microseconds(begin), microseconds(end)
    )
    (reserved,) = connection.execute(_RESERVED, (*at, microseconds(now.astimezone(UTC)))).fetchone()
    return BudgetStatus(budget, joined(row[0], row[1]), reserved, end)


def _begin(
    connection: sqlite3.Connection, number: int, budget: Budget, begin_us: int, end_us: int
) -> tuple[int, int, int]:
    """What the events of the period amount to, the first time it is asked for."""
    usd, pico = connection.execute(
        f"SELECT SUM(cost_pico_usd / {PICO_PER_USD}), SUM(cost_pico_usd % {PICO_PER_USD}) FROM events "
        f"WHERE time_us >= ? AND time_us < ? AND tenant = ? AND {budget.scope} = ?",
        (begin_us, end_us, budget.tenant, budget.value),
    ).fetchone()
    row = (*split(joined(usd, pico)), 0)
    _set(connection, number, begin_us, row)
    return row


def _set(connection: sqlite3.Connection, number: int, begin_us: int, row: tuple[int, int, int]) -> None:
    connection.execute("INSERT OR REPLACE INTO budget_spend VALUES (?, ?, ?, ?, ?)", (number, begin_us, *row))


def _cost(event: Event) -> int:
    return 0 if event.cost is None else event.cost.pico_usd
