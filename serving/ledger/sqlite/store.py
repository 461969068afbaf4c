"""The ledger in one SQLite file: events as they happen, and their sums."""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from serving.api_key import ApiKey
from serving.errors import LedgerError
from serving.ledger.budgets import Budget, BudgetStatus, Spender
from serving.ledger.events import SAVINGS, Event
from serving.ledger.feedback import Feedback
from serving.ledger.request_log import Forgettable, Forgotten, Logged, LoggedDecision, Matched
from serving.ledger.sqlite import api_keys, budgets, request_log
from serving.ledger.sqlite.forget import forget
from serving.ledger.sqlite.migrations import BUSY_S, connect, migrate
from serving.ledger.sqlite.money import PICO, USD, joined
from serving.ledger.sqlite.rollups import COUNTS, DIMENSIONS, MONEY, UNSET, Rollups
from serving.ledger.sqlite.rows import COLUMNS, event_of, microseconds, row_of
from serving.ledger.sqlite.turns import Turns
from serving.ledger.sqlite.writer import GroupCommit
from serving.ledger.store import Totals

_PAGE: Final = 1_000
_MOST_TO_TELL: Final = 1_000  # where nobody asks
INSERT: Final = (
    f"INSERT INTO events ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) "
    "ON CONFLICT (tenant, key) DO NOTHING"
)
_KEPT: Final = ("time", "user", "session_id", "request_id")
"""Of an event that is settled, these stay as they are: its names may have been forgotten since it was started."""
_STARTED: Final = f"SELECT {', '.join(COLUMNS)} FROM events WHERE tenant = ? AND key = ? AND status = 'started'"

_Write = Callable[[Rollups], Any]
"""A write inside the writer's transaction; what it adds to the sums goes in with those of its group."""


class SqliteLedger:
    """A `LedgerStore`. Several processes may have the same file open.

    busy_s: for how long another process may keep it from writing. Raises LedgerError when the file cannot be made,
    opened or brought up to date.
    """

    def __init__(self, path: Path, *, busy_s: float = BUSY_S) -> None:
        migrate(path)
        self._path = path
        self._connection = connect(path)
        self._budgeted = False
        self._to_tell: deque[BudgetStatus] = deque(maxlen=_MOST_TO_TELL)
        self._turns = Turns(path, self._connection, busy_s)
        self._writer: GroupCommit[_Write, Any] = GroupCommit(self._connection, self._turns.begin, self._write)

    @property
    def problem(self) -> str | None:
        """Why it cannot be written, as long as it cannot."""
        return self._writer.problem

    def record(self, events: Sequence[Event]) -> "Future[tuple[bool, ...]]":
        """Write all of them or none; see `LedgerStore`."""
        return self._writer.submit(lambda sums: tuple([self._write_one(event, sums) for event in events]))

    def log(self, decision: LoggedDecision) -> "Future[None]":
        """Keep what a decision saw; see `LedgerStore`."""
        return self._writer.submit(lambda _: request_log.insert(self._connection, decision), at_once=False)

    def give(self, feedback: Feedback) -> "Future[Matched | None]":
        """Keep what somebody thought of an answer; see `LedgerStore`."""
        return self._writer.submit(lambda _: request_log.insert_feedback(self._connection, feedback))

    def logged(self) -> Iterator[Logged]:
        """The request log; see `LedgerStore`."""
        with self._reader() as reader:
            yield from request_log.read(reader)

    def forget(self, what: Forgettable, value: str, *, tenant: str | None = None) -> Forgotten:
        """Delete what is known of a request, session or user; see `LedgerStore`."""
        total = Forgotten(0, 0, 0)
        while any(
            part := self._writer.submit(lambda sums: forget(self._connection, sums, what, value, tenant)).result()
        ):
            total = Forgotten(*(sum(pair) for pair in zip(total, part, strict=True)))
        self._overwrite_wal()
        return total

    def expire(self, before: datetime) -> int:
        """Delete old decisions and feedback; see `LedgerStore`."""
        deleted, time_us = 0, microseconds(before)
        while part := self._writer.submit(lambda _: request_log.expire(self._connection, time_us)).result():
            deleted += part
        if deleted:
            self._overwrite_wal()
        return deleted

    def totals(
        self, dimension: str, since: date, until: date, *, tenant: str | None = None, daily: bool = False
    ) -> list[Totals]:
        """Sums by value of a dimension; see `LedgerStore`."""
        if dimension not in DIMENSIONS:
            raise ValueError(f"{dimension!r} is not one of {', '.join(DIMENSIONS)}")
        names = [*COUNTS, *(f"{name}{part}" for name in MONEY for part in (USD, PICO))]
        day = "day" if daily else "NULL"
        query = (
            f"SELECT {day}, value, {', '.join(f'SUM({name})' for name in names)} FROM rollups "
            "WHERE dimension = ? AND day BETWEEN ? AND ? AND (? IS NULL OR tenant = ?) "
            f"GROUP BY {day}, value ORDER BY {day}, value"
        )
        asked = (dimension, since.toordinal(), until.toordinal(), tenant, tenant)
        with self._reader() as reader:
            return [_totals(row) for row in reader.execute(query, asked)]

    def events(self, since: datetime, until: datetime, *, tenant: str | None = None) -> Iterator[Event]:
        """The events themselves; see `LedgerStore`."""
        query = (
            f"SELECT seq, {', '.join(COLUMNS)} FROM events WHERE (time_us, seq) > (?, ?) AND time_us < ? "
            f"AND (? IS NULL OR tenant = ?) ORDER BY time_us, seq LIMIT {_PAGE}"
        )
        last, end = (microseconds(since) - 1, 2**62), microseconds(until)
        time = 1 + COLUMNS.index("time_us")
        with self._reader() as reader:
            while rows := reader.execute(query, (*last, end, tenant, tenant)).fetchall():
                yield from (event_of(row[1:]) for row in rows)
                last = rows[-1][time], rows[-1][0]

    def event(self, key: str, tenant: str) -> Event:
        """The event of a key; see `LedgerStore`."""
        query = f"SELECT {', '.join(COLUMNS)} FROM events WHERE tenant = ? AND key = ?"
        with self._reader() as reader:
            return event_of(reader.execute(query, (tenant, key)).fetchone())

    def add_key(self, key: ApiKey, digest: bytes) -> None:
        """Keep a new key; see `LedgerStore`."""
        self._writer.submit(lambda _: api_keys.insert(self._connection, key, digest)).result()

    def revoke_key(self, id_: str, time: datetime) -> bool:
        """From now on it opens nothing; see `LedgerStore`."""
        return bool(self._writer.submit(lambda _: api_keys.revoke(self._connection, id_, time)).result())

    def keys(self) -> dict[bytes, ApiKey]:
        """All of them; see `LedgerStore`."""
        with self._reader() as reader:
            return api_keys.every(reader)

    def set_budget(self, budget: Budget) -> None:
        """Set it, or change the one of the same scope and period; see `LedgerStore`."""
        self._writer.submit(lambda _: self._put_budget(budget)).result()

    def remove_budget(self, budget: Budget) -> bool:
        """Take it away; see `LedgerStore`."""
        return bool(self._writer.submit(lambda _: budgets.remove(self._connection, budget)).result())

    def budgets(self) -> list[Budget]:
        """All of them; see `LedgerStore`."""
        with self._reader() as reader:
            return budgets.every(reader)

    def budget_status(self, now: datetime) -> list[BudgetStatus]:
        """What is left of each; see `LedgerStore`."""
        found: list[BudgetStatus] = self._writer.submit(
            lambda sums: budgets.status(self._connection, sums, now)
        ).result()
        return found

    def reserve(
        self, id_: str, who: Spender, pico_usd: int, now: datetime, ttl: timedelta
    ) -> "Future[BudgetStatus | None]":
        """Hold an amount for a call; see `LedgerStore`."""
        return self._writer.submit(lambda sums: budgets.reserve(self._connection, sums, id_, who, pico_usd, now, ttl))

    def release(self, id_: str, tenant: str) -> "Future[None]":
        """Let go of it; see `LedgerStore`."""
        return self._writer.submit(lambda _: budgets.release(self._connection, id_, tenant))

    def keep(self, id_: str, tenant: str) -> "Future[None]":
        """Hold it until the period ends; see `LedgerStore`."""
        return self._writer.submit(lambda _: budgets.keep(self._connection, id_, tenant))

    def to_tell(self) -> list[BudgetStatus]:
        """Budgets that have come near their limit or passed it; see `LedgerStore`."""
        found = []
        while self._to_tell:
            found.append(self._to_tell.popleft())
        return found

    def close(self) -> None:
        """Write what is waiting and let go."""
        self._writer.close()
        self._connection.close()
        self._turns.close()

    def _write(self, jobs: "list[_Write]") -> list[Any]:
        """Inside a transaction."""
        sums = Rollups()
        self._budgeted = self._connection.execute("SELECT EXISTS (SELECT 1 FROM budgets)").fetchone() == (1,)
        answers = [job(sums) for job in jobs]
        sums.write(self._connection)
        return answers

    def _write_one(self, event: Event, sums: Rollups) -> bool:
        row = row_of(event)
        if self._connection.execute(INSERT, row).rowcount:
            sums.add(event)
            self._spend(event, None, sums)
            return True
        if event.status == "started":
            return False
        started = self._connection.execute(_STARTED, (event.tenant, event.key)).fetchone()
        if started is None:
            return False
        before = event_of(started)
        settled = _settled(event, before)
        self._settle(settled, started)
        sums.add(before, -1)
        sums.add(settled)
        self._spend(settled, before, sums)
        return True

    def _settle(self, event: Event, started: Sequence[object]) -> None:
        """Write what is not as it was: an index is written again whenever a column of it is set, to whatever."""
        row = zip(COLUMNS, row_of(event), started, strict=True)
        changed = {name: value for name, value, before in row if value != before}
        names = ", ".join(f"{name} = ?" for name in changed)
        self._connection.execute(
            f"UPDATE events SET {names} WHERE tenant = ? AND key = ?", (*changed.values(), event.tenant, event.key)
        )

    def _put_budget(self, budget: Budget) -> None:
        budgets.put(self._connection, budget)
        self._budgeted = True  # for events in the same group

    def _spend(self, event: Event, before: Event | None, sums: Rollups) -> None:
        if self._budgeted:
            self._to_tell.extend(budgets.spend(self._connection, sums, event, before))

    def _overwrite_wal(self) -> None:
        """What was deleted is zeros in the file; its earlier pages would stay in the log beside it until it is reused.

        Raises LedgerError when another process kept it in use all along.
        """
        try:
            with closing(connect(self._path)) as connection:
                (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise LedgerError(f"{self._path}: deleted, but its write-ahead log cannot be emptied: {error}") from None
        if busy:
            raise LedgerError(
                f"{self._path}: deleted, but the write-ahead log beside it is in use and may hold it still; try again"
            )

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection that cannot write. Raises LedgerError when it cannot read either."""
        with closing(connect(self._path)) as reader:
            try:
                reader.execute("PRAGMA query_only = ON")
                yield reader
            except sqlite3.Error as error:
                raise LedgerError(f"{self._path}: cannot be read: {error}") from None


def _settled(event: Event, before: Event) -> Event:
    """A started event as it is to be from now on, without the names that were forgotten since it was started."""
    kept = {name: getattr(before, name) for name in _KEPT}
    if any(getattr(event, name) is not None and of is None for name, of in kept.items()):
        kept["completion_id"] = None
    return event.model_copy(update=kept)


def _totals(row: tuple[int | str | None, ...]) -> Totals:
    day, value, *sums = row
    counts = dict(zip(COUNTS, sums, strict=False))
    halves = sums[len(COUNTS) :]
    money = {name: joined(*halves[2 * i : 2 * i + 2]) for i, name in enumerate(MONEY)}  # type: ignore[arg-type]
    return Totals(
        day=None if day is None else date.fromordinal(int(day)),
        value=None if value == UNSET else str(value),
        cost_pico_usd=money["cost"],
        saved_pico_usd=tuple(money[f"saved_{kind}"] for kind in SAVINGS),
        spent_on_saving_pico_usd=money["spent_on_saving"],
        **{name: int(count or 0) for name, count in counts.items()},
    )
