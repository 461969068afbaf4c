"""Deletion of what is known of a request, a session or a user. Money stays, under no name."""

import json
import sqlite3
from typing import Any, Final

from serving.ledger.request_log import Forgettable, Forgotten
from serving.ledger.sqlite.rollups import Rollups
from serving.ledger.sqlite.rows import COLUMNS, event_of

_AT_ONCE: Final = 1_000  # some tens of ms, which other writes wait
_DECISIONS_BY: Final[dict[Forgettable, tuple[str, ...]]] = {
    "request": ("id", "request_id"),
    "session": ("session_id",),
    "user": ("user",),
}
_EVENTS_BY: Final[dict[Forgettable, tuple[str, ...]]] = {
    "request": ("key", "request_id", "completion_id", "decision_id"),
    "session": ("session_id",),
    "user": ("user",),
}
_OF_TENANT: Final = "(:tenant IS NULL OR tenant = :tenant)"
_NAMES: Final = ("user", "session_id", "request_id", "completion_id")
_NAMED: Final = f"COALESCE({', '.join(_NAMES)}) IS NOT NULL"


def forget(
    connection: sqlite3.Connection, sums: Rollups, what: Forgettable, value: str, tenant: str | None
) -> Forgotten:
    """Some of it, inside a transaction; to be called until there was nothing left.

    Decisions of the events found go as well, and so do the names in other events of the decisions.
    """
    asked: dict[str, Any] = {"value": value, "tenant": tenant}
    found = _any(connection, "events", "decision_id", _EVENTS_BY[what], asked, _NAMED)
    asked["of_events"] = json.dumps([decision for _, _, decision in found if decision is not None])
    decisions = _any(connection, "decisions", "id, request_id", _DECISIONS_BY[what], asked)
    decisions += connection.execute(
        "SELECT seq, tenant, id, request_id FROM decisions "
        f"WHERE id IN (SELECT value FROM json_each(:of_events)) AND {_OF_TENANT}",
        asked,
    ).fetchall()
    asked["of_decisions"] = json.dumps([decision for _, _, decision, _ in decisions])
    beside = "SELECT seq FROM events WHERE decision_id IN (SELECT value FROM json_each(:of_decisions))"
    asked["events"] = json.dumps([seq for seq, *_ in found])
    events = connection.execute(
        f"SELECT seq, {', '.join(COLUMNS)} FROM events WHERE seq IN (SELECT value FROM json_each(:events)) "
        f"OR (seq IN ({beside}) AND {_OF_TENANT} AND {_NAMED})",
        asked,
    ).fetchall()
    ids = {(owner, id_) for _, owner, *names in (*found, *decisions) for id_ in names if id_ is not None}
    for seq, *row in events:
        event = event_of(tuple(row))
        ids |= {(event.tenant, id_) for id_ in (event.key, event.request_id, event.completion_id) if id_ is not None}
        sums.add(event, -1)
        sums.add(event.model_copy(update=dict.fromkeys(_NAMES)))
        connection.execute(f"UPDATE events SET {', '.join(f'{name} = NULL' for name in _NAMES)} WHERE seq = ?", (seq,))
    gone = _delete_feedback(connection, what, ids, asked)
    asked["decisions"] = json.dumps([seq for seq, *_ in decisions])
    deleted = connection.execute(
        "DELETE FROM decisions WHERE seq IN (SELECT value FROM json_each(:decisions))", asked
    ).rowcount
    sums.write(connection)  # now, so that sums of a name that nobody has any more can go
    if not events and not deleted:
        connection.execute(f"DELETE FROM rollups WHERE dimension = 'user' AND events = 0 AND {_OF_TENANT}", asked)
    return Forgotten(deleted, gone, len(events))


def _any(
    connection: sqlite3.Connection,
    table: str,
    ids: str,
    names: tuple[str, ...],
    asked: dict[str, Any],
    where: str = "1",
) -> list[tuple[Any, ...]]:
    """Rows that have the value under one of the names, each by its index: number, tenant and the ids asked for."""
    each = (
        f"SELECT seq, tenant, {ids} FROM {table} WHERE {name} = :value AND {_OF_TENANT} AND {where}" for name in names
    )
    return connection.execute(f"{' UNION '.join(each)} LIMIT {_AT_ONCE}", asked).fetchall()


def _delete_feedback(
    connection: sqlite3.Connection, what: Forgettable, ids: set[tuple[str, str]], asked: dict[str, Any]
) -> int:
    gone = connection.execute(
        "DELETE FROM feedback WHERE seq IN (SELECT feedback.seq FROM json_each(?) AS asked JOIN feedback "
        "ON about = json_extract(asked.value, '$[1]') AND tenant = json_extract(asked.value, '$[0]'))",
        (json.dumps(sorted(ids)),),
    ).rowcount
    if what == "request":
        gone += connection.execute(f"DELETE FROM feedback WHERE about = :value AND {_OF_TENANT}", asked).rowcount
    return gone
