"""The ledger of a process: opened when it is first needed, and again when that failed."""

import asyncio
import logging
import threading
import time
from pathlib import Path
from typing import Final

from serving.errors import LedgerError
from serving.ledger.sqlite.store import SqliteLedger
from serving.ledger.store import LedgerStore

logger = logging.getLogger(__name__)

_TRY_AGAIN_S: Final = 1.0


class LedgerAccess:
    """The store at `path`. To import or to build a service opens nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._store: LedgerStore | None = None
        self._failure: LedgerError | None = None
        self._failed_at = 0.0
        self._lock = threading.Lock()

    @property
    def problem(self) -> str | None:
        """Why it cannot be written, as long as it cannot."""
        if self._store is not None:
            return self._store.problem
        return None if self._failure is None else str(self._failure)

    @property
    def opened(self) -> LedgerStore | None:
        """The store, if it is open already."""
        return self._store

    def store(self) -> LedgerStore:
        """The store, which to open can take seconds while another process holds the file.

        Raises LedgerError when it cannot be opened; a second later it is tried again.
        """
        with self._lock:
            if self._store is not None:
                return self._store
            if self._failure is not None and time.monotonic() - self._failed_at < _TRY_AGAIN_S:
                raise self._failure
            try:
                self._store, self._failure = SqliteLedger(self._path), None
            except LedgerError as error:
                if self._failure is None:
                    logger.error("the ledger cannot be opened: %s", error)
                self._failure, self._failed_at = error, time.monotonic()
                raise
            return self._store

    async def ready(self) -> LedgerStore:
        """The same without keeping the event loop waiting."""
        return await asyncio.to_thread(self.store) if self._store is None else self._store

    def close(self) -> None:
        """Write what waits, and let go."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None
