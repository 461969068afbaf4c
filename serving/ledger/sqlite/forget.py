"""Deletion of what is known of a request, a session or a user. Money stays, under no name."""

import json
import sqlite3
from typing import Any, Final

from serving.ledger.request_log import Forgettable, Forgotten
from serving.ledger.sqlite.rollups import Rollups
from serving.ledger.sqlite.rows import COLUMNS, event_of

_DECISIONS: Final[dict[Forgettable, str]] = {
    "request": "id = :value OR request_id = :value",
    "session": "session_id = :value",
    "user": "user = :value",
}
_EVENTS: Final[dict[Forgettable, str]] = {
    "request": "key = :value OR request_id = :value OR completion_id = :value OR decision_id = :value",
    "session": "session_id = :value",
    "user": "user = :value",
}
_NAMED: Final = "(:tenant IS NULL OR tenant = :tenant)"
_NAMES: Final = ("user", "session_id", "request_id", "completion_id")


def forget(
    connection: sqlite3.Connection, sums: Rollups, what: Forgettable, value: str, tenant: str | None
) -> Forgotten:
    """Inside a transaction. Decisions of the events found go as well, and so do other events of the decisions."""
    asked: dict[str, Any] = {"value": value, "tenant": tenant}
    of_events = f"SELECT decision_id FROM events WHERE ({_EVENTS[what]}) AND {_NAMED} AND decision_id IS NOT NULL"
    decisions = connection.execute(
        f"SELECT id, request_id FROM decisions WHERE ({_DECISIONS[what]} OR id IN ({of_events})) AND {_NAMED}", asked
    ).fetchall()
    asked["decisions"] = json.dumps([id_ for id_, _ in decisions])
    events = connection.execute(
        f"SELECT seq, {', '.join(COLUMNS)} FROM events WHERE {_NAMED} AND "
        f"({_EVENTS[what]} OR decision_id IN (SELECT value FROM json_each(:decisions)))",
        asked,
    ).fetchall()
    ids = {id_ for row in decisions for id_ in row if id_ is not None} | ({value} if what == "request" else set())
    for seq, *row in events:
        event = event_of(tuple(row))
        ids |= {id_ for id_ in (event.key, event.request_id, event.completion_id) if id_ is not None}
        sums.add(event, -1)
        sums.add(event.model_copy(update=dict.fromkeys(_NAMES)))
        connection.execute(f"UPDATE events SET {', '.join(f'{name} = NULL' for name in _NAMES)} WHERE seq = ?", (seq,))
    sums.write(connection)  # now, so that the user's own sums, all zero, can go
    sums.clear()
    if what == "user":
        nothing = f"dimension = 'user' AND value = :value AND events = 0 AND {_NAMED}"
        connection.execute(f"DELETE FROM rollups WHERE {nothing}", asked)
    asked["ids"] = json.dumps(sorted(ids))
    gone = connection.execute(
        f"DELETE FROM feedback WHERE about IN (SELECT value FROM json_each(:ids)) AND {_NAMED}", asked
    ).rowcount
    connection.execute("DELETE FROM decisions WHERE id IN (SELECT value FROM json_each(:decisions))", asked)
    return Forgotten(len(decisions), gone, len(events))
