"""The request log in the ledger's file: decisions and feedback go in, and come out with the calls between them."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any, Final

from serving.ledger.events import Event
from serving.ledger.feedback import Feedback
from serving.ledger.request_log import Logged, LoggedDecision, Matched
from serving.ledger.sqlite.rows import COLUMNS, event_of, microseconds, time_of

_PAGE: Final = 500
_EXPIRED_AT_ONCE: Final = 500  # a few ms, which other writes wait; where texts are long, more
_NAMES: Final = tuple(field.name for field in fields(LoggedDecision))
_DECISION: Final = tuple("time_us" if name == "time" else name for name in _NAMES)
_FEEDBACK: Final = ("tenant", "about", "time_us", "acceptable", "score", "kind", "comment")
_EVENT: Final = ", ".join(f"events.{name}" for name in COLUMNS)

_IDS: Final = ("key", "completion_id", "request_id", "decision_id")
"""Of an event: what feedback may name it by."""
EVENT_NAMED: Final = " UNION ALL ".join(
    f"SELECT 1 FROM events WHERE tenant = :tenant AND {name} = :id" for name in _IDS
)
_OWNER: Final = """
SELECT id FROM decisions WHERE tenant = :tenant AND id IN (
    SELECT id FROM decisions WHERE request_id = :request
    UNION ALL SELECT decision_id FROM events WHERE request_id = :request AND tenant = :tenant
) ORDER BY EXISTS (
    SELECT 1 FROM events WHERE decision_id = decisions.id AND events.tenant = decisions.tenant AND status = 'ok'
) DESC, seq DESC LIMIT 1
"""
"""Of several decisions on one request, the one that feedback on the request is about: the last that was answered."""


def insert(connection: sqlite3.Connection, decision: LoggedDecision) -> None:
    """Keep a decision."""
    values = {name: getattr(decision, name) for name in _NAMES}
    values |= {"time": microseconds(decision.time), "probabilities": json.dumps(decision.probabilities)}
    connection.execute(_insert_into("decisions", _DECISION), [values[name] for name in _NAMES])


def insert_feedback(connection: sqlite3.Connection, given: Feedback) -> Matched | None:
    """Keep feedback, and say what it is about."""
    judged = (None if given.acceptable is None else int(given.acceptable), given.score, given.kind)
    row = (given.tenant, given.id, microseconds(given.time), *judged, given.comment)
    connection.execute(_insert_into("feedback", _FEEDBACK), row)
    asked = {"tenant": given.tenant, "id": given.id}
    decision = "SELECT 1 FROM decisions WHERE (id = :id OR request_id = :id) AND tenant = :tenant"
    if connection.execute(decision, asked).fetchone():
        return "decision"
    return "call" if connection.execute(EVENT_NAMED, asked).fetchone() else None


def read(connection: sqlite3.Connection) -> Iterator[Logged]:
    """All decisions with their calls and feedback, oldest first, in pages."""
    page = f"SELECT seq, {', '.join(_DECISION)} FROM decisions WHERE seq > ? ORDER BY seq LIMIT {_PAGE}"
    last = 0
    while rows := connection.execute(page, (last,)).fetchall():
        last = rows[-1][0]
        decisions = [_decision_of(row[1:]) for row in rows]
        calls = _calls(connection, [decision.id for decision in decisions])
        named = {id_ for decision in decisions for id_ in _ids(decision, calls[decision.tenant, decision.id])}
        given = _feedback(connection, named)
        for decision in decisions:
            made = calls[decision.tenant, decision.id]
            requests = {id_ for id_ in (decision.request_id, *(call.request_id for call in made)) if id_ is not None}
            others = {
                id_ for id_ in requests if given[decision.tenant, id_] and _is_of_another(connection, decision, id_)
            }
            about = [one for id_ in _ids(decision, made) - others for one in given[decision.tenant, id_]]
            yield Logged(decision, tuple(made), tuple(feedback for _, feedback in sorted(about, key=lambda of: of[0])))


def expire(connection: sqlite3.Connection, before_us: int) -> int:
    """Delete some of the decisions and feedback that are older; 0 when none is left."""
    return sum(
        connection.execute(
            f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} WHERE time_us < ? LIMIT {_EXPIRED_AT_ONCE})",
            (before_us,),
        ).rowcount
        for table in ("decisions", "feedback")
    )


def _insert_into(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def _decision_of(row: tuple[Any, ...]) -> LoggedDecision:
    values = dict(zip(_NAMES, row, strict=True))
    values |= {"time": time_of(values["time"]), "probabilities": json.loads(values["probabilities"])}
    return LoggedDecision(**values)


def _calls(connection: sqlite3.Connection, decisions: list[str]) -> defaultdict[tuple[str, str], list[Event]]:
    """The events of decisions, by tenant and decision."""
    found: defaultdict[tuple[str, str], list[Event]] = defaultdict(list)
    query = f"SELECT {_EVENT} FROM json_each(?) AS asked JOIN events ON decision_id = asked.value ORDER BY time_us, seq"
    for row in connection.execute(query, (json.dumps(decisions),)):
        event = event_of(row)
        assert event.decision_id is not None
        found[event.tenant, event.decision_id].append(event)
    return found


def _feedback(
    connection: sqlite3.Connection, about: Iterable[str]
) -> defaultdict[tuple[str, str], list[tuple[int, Feedback]]]:
    """Feedback with its place in the order it came in, by tenant and the id it names."""
    found: defaultdict[tuple[str, str], list[tuple[int, Feedback]]] = defaultdict(list)
    columns = ", ".join(f"feedback.{name}" for name in _FEEDBACK)
    query = f"SELECT seq, {columns} FROM json_each(?) AS asked JOIN feedback ON about = asked.value"
    for seq, tenant, id_, time_us, acceptable, score, kind, comment in connection.execute(
        query, (json.dumps(sorted(about)),)
    ):
        judged = None if acceptable is None else bool(acceptable)
        one = Feedback(id=id_, tenant=tenant, time=time_of(time_us), acceptable=judged, score=score, kind=kind,
                       comment=comment)  # fmt: skip
        found[tenant, id_].append((seq, one))
    return found


def _is_of_another(connection: sqlite3.Connection, decision: LoggedDecision, request: str) -> bool:
    """Whether feedback on the request is about another decision than this one of it."""
    owner = connection.execute(_OWNER, {"tenant": decision.tenant, "request": request}).fetchone()
    return bool(owner != (decision.id,))


def _ids(decision: LoggedDecision, calls: Iterable[Event]) -> set[str]:
    """All that feedback may name a decision or one of its calls by."""
    ids = {decision.id, decision.request_id, *(getattr(call, name) for call in calls for name in _IDS)}
    return {id_ for id_ in ids if id_ is not None}
