"""One thread that writes for all others: whoever waits when it is done with a commit shares the next one.

A commit that survives a crash costs the disk's flush, some ms, however much is in it.
"""

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Final, Generic, TypeVar

from serving.errors import LedgerError

logger = logging.getLogger(__name__)

_MOST_WAITING: Final = 10_000  # jobs; beyond, the disk has stopped, and memory must not fill
_MOST_TOGETHER: Final = 1_000
_MOST_DELAYED: Final = 2_000  # jobs that nobody waits for are refused first: they hold texts, and are worth less
_ENOUGH: Final = 200  # delayed jobs are worth a commit of their own
_TRY_AGAIN_S: Final = 1.0

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class GroupCommit(Generic[Job, Answer]):
    """Jobs in, answers out once they are on disk.

    begin: begins a transaction, when it is its turn. write: carries out jobs inside it, one answer for each.
    connection: used by this thread alone.
    """

    def __init__(
        self, connection: sqlite3.Connection, begin: Callable[[], None], write: Callable[[list[Job]], list[Answer]]
    ) -> None:
        self.problem: str | None = None
        self._connection = connection
        self._begin = begin
        self._write = write
        self._waiting: deque[tuple[Job, Future[Answer]]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def submit(self, job: Job, *, at_once: bool = True) -> "Future[Answer]":
        """The answer to come. It raises LedgerError when the job could not be written: it then left no trace.

        at_once: otherwise it waits for the next job that cannot, a second at most, which spares it a commit of its own;
        and is refused sooner where the disk does not keep up.
        """
        future: Future[Answer] = Future()
        future.set_running_or_notify_cancel()  # what is handed over will be written: it cannot be cancelled
        with self._wake:
            most = _MOST_WAITING if at_once else _MOST_DELAYED
            if self._closing or len(self._waiting) >= most:
                why = "is closed" if self._closing else f"does not keep up: {most} writes wait"
                future.set_exception(LedgerError(f"the ledger {why}"))
                return future
            self._waiting.append((job, future))
            if at_once or len(self._waiting) >= _ENOUGH:
                self._wake.notify()
        return future

    def close(self) -> None:
        """Write what waits, and end."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    if not self._wake.wait(_TRY_AGAIN_S) and self.problem is not None:
                        break  # see whether it can be written again, so that calls can go on
                if not self._waiting and self._closing:
                    return
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_TOGETHER))]
            self._commit(group)

    def _commit(self, group: list[tuple[Job, Future[Answer]]]) -> None:
        try:
            self._begin()
            answers = self._write([job for job, _ in group])
            if not group:  # an empty transaction touches no disk
                self._connection.execute(f"PRAGMA user_version = {self._version()}")
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 -- whatever it is, those who wait must hear of it
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            self._fail(group, error)
            return
        if self.problem is not None:
            logger.warning("the ledger can be written again")
            self.problem = None
        for (_, future), answer in zip(group, answers, strict=True):
            future.set_result(answer)

    def _fail(self, group: list[tuple[Job, Future[Answer]]], error: Exception) -> None:
        cannot_write = isinstance(error, sqlite3.OperationalError)  # the disk, a lock; otherwise it is one of the jobs
        if len(group) > 1 and not cannot_write:
            for one in group:
                self._commit([one])
            return
        if not cannot_write:
            logger.error("a write to the ledger was refused", exc_info=error)
        elif self.problem is None:
            logger.error("the ledger cannot be written: %s", error)
        if cannot_write:
            self.problem = f"the ledger cannot be written: {error}"
        for _, future in group:
            future.set_exception(LedgerError(f"the ledger cannot be written: {error}"))

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])
