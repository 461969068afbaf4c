"""Whose turn it is to write, where several processes have the same ledger open.

SQLite lets in whoever asks at the right moment, and who waits asks ever more rarely: a busy process would keep another
out for as long as it is busy. Here the one that waits holds a lock on a file beside the ledger, `ledger.db-turn`, which
the one that has just written needs before it can write again. It is a courtesy: who cannot have the lock for long, or
at all, writes when SQLite lets it.
"""

import fcntl
import logging
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

_ASK_AGAIN_S: Final = 0.001
_COURTESY_S: Final = 0.2
"""Longer than any commit. Whoever holds the lock for longer is stopped, and must not stop the others."""


class Turns:
    """For one connection, whose own wait for SQLite it replaces. The lock of a process that ends, ends with it.

    busy_s: seconds until it gives up.
    """

    def __init__(self, ledger: Path, connection: sqlite3.Connection, busy_s: float) -> None:
        self._next = _opened(ledger.with_name(f"{ledger.name}-turn"))
        self._connection = connection
        self._connection.execute("PRAGMA busy_timeout = 0")  # it is asked again here
        self._busy_s = busy_s

    def begin(self) -> None:
        """Begin a transaction that writes. Raises sqlite3.OperationalError when it was busy for too long."""
        began = time.monotonic()
        is_next = False
        try:
            while True:
                waited = time.monotonic() - began
                is_next = is_next or waited > _COURTESY_S or self._ask_to_be_next()
                if is_next and self._ask_to_write(last=waited > self._busy_s):
                    return
                time.sleep(_ASK_AGAIN_S)
        finally:
            self._let_go()

    def close(self) -> None:
        """Let go of the file; it stays, for others."""
        if self._next is not None:
            os.close(self._next)
            self._next = None

    def _ask_to_be_next(self) -> bool:
        if self._next is None:
            return True
        try:
            fcntl.flock(self._next, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:  # a disk that knows no locks
            logger.warning("processes do not take turns at the ledger: its lock cannot be had: %s", error)
            self.close()
        return True

    def _let_go(self) -> None:
        if self._next is not None:
            with suppress(OSError):  # it goes with the file at the latest
                fcntl.flock(self._next, fcntl.LOCK_UN)

    def _ask_to_write(self, *, last: bool) -> bool:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if last or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        return True


def _opened(path: Path) -> int | None:
    """To be locked, which needs no right to write it: it may be another user's."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        logger.warning("processes do not take turns at the ledger: %s: %s", path, error.strerror)
        return None
