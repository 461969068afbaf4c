"""Which tier does a session have? One small SQLite file for all workers of a machine, without the sessions' names."""

import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from serving.attribution import Attribution

logger = logging.getLogger(__name__)

_WAIT_S: Final = 0.02  # for another worker's write, of some .04 ms; no request is to wait for one that is stuck
_PRUNE_EVERY: Final = 1000  # sessions written
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sessions (
    session BLOB PRIMARY KEY, tier TEXT NOT NULL, propensity REAL NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_used ON sessions (used);
"""


class Kept(NamedTuple):
    """A session's tier, and the propensity of the decision that chose it."""

    tier: str
    propensity: float


class Sessions:
    """What is kept for `ttl_s` seconds after a session was last seen, to within a tenth of it.

    A failure of the file costs stickiness, never a decision: it is told to `on_failure`, and the next call tries
    again. Nothing is opened before the first session is asked for. Safe to use from several threads.
    """

    def __init__(
        self,
        path: Path,
        *,
        ttl_s: float,
        most: int,
        on_failure: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`most`: the least recently seen sessions beyond it are forgotten, in steps of 1,000."""
        self._path = path
        self._ttl_s = ttl_s
        self._most = most
        self._on_failure = on_failure
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._written = 0
        self._failing = False

    def find(self, who: Attribution) -> Kept | None:
        """What is kept for the session of `who`."""
        try:
            with self._lock:
                return self._find(self._opened(), _key(who))
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return None

    def keep(self, who: Attribution, kept: Kept, *, instead_of: Kept | None) -> None:
        """Keep a decision for later requests, unless another worker has kept one since `instead_of` was found."""
        try:
            with self._lock:
                self._keep(self._opened(), _key(who), kept, instead_of)
                self._failing = False
        except (sqlite3.Error, OSError) as error:
            self._failed(error)

    def _find(self, database: sqlite3.Connection, key: bytes) -> Kept | None:
        now = self._clock()
        row = database.execute("SELECT tier, propensity, used FROM sessions WHERE session = ?", (key,)).fetchone()
        if row is None or row[2] < now - self._ttl_s:
            return None
        if row[2] < now - self._ttl_s / 10:  # not at every request: a write costs more than all the rest here
            database.execute("UPDATE sessions SET used = ? WHERE session = ?", (now, key))
        return Kept(row[0], row[1])

    def _keep(self, database: sqlite3.Connection, key: bytes, kept: Kept, instead_of: Kept | None) -> None:
        now = self._clock()
        database.execute(
            "INSERT INTO sessions VALUES (?, ?, ?, ?) ON CONFLICT (session) DO UPDATE "
            "SET tier = excluded.tier, propensity = excluded.propensity, used = excluded.used "
            "WHERE used < ? OR tier = ?",
            (key, kept.tier, kept.propensity, now, now - self._ttl_s, instead_of and instead_of.tier),
        )
        self._written += 1
        if self._written % _PRUNE_EVERY == 0:
            database.execute(
                "DELETE FROM sessions WHERE session IN (SELECT session FROM sessions ORDER BY used LIMIT "
                "max(0, (SELECT count(*) FROM sessions) - ?))",
                (self._most,),
            )

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
            # Never synced, which would hold up the event loop 10 to 20 ms at one new session in 400. A crash of ours
            # costs nothing; a power cut may cost the file, and with it no more than sessions.
            database.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; {_SCHEMA}")
            self._connection = database
        return self._connection

    def _failed(self, error: Exception) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            first, self._failing, self._connection = not self._failing, True, None
        if first:  # the metric counts the others
            logger.warning("sessions are not kept: %s: %s", self._path, error)
        self._on_failure()


def _key(who: Attribution) -> bytes:
    """A session belongs to its tenant and team: two may count theirs from 1."""
    return hashlib.sha256(json.dumps([who.tenant, who.team, who.session_id]).encode()).digest()[:16]
