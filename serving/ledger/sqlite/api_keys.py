"""Keys in the ledger's file, by their digests."""

import json
import sqlite3
from datetime import datetime
from typing import Any, Final

from serving.api_key import ApiKey
from serving.ledger.sqlite.rows import microseconds, time_of

_LISTS: Final = ("scopes", "models")
_TIMES: Final = ("created", "revoked")
_NAMES: Final = tuple(ApiKey.model_fields)
_COLUMNS: Final = ("digest", *(f"{name}_us" if name in _TIMES else name for name in _NAMES))
_INSERT: Final = f"INSERT INTO keys ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


def insert(connection: sqlite3.Connection, key: ApiKey, digest: bytes) -> None:
    """Keep a new key."""
    connection.execute(_INSERT, (digest, *(_stored(name, getattr(key, name)) for name in _NAMES)))


def revoke(connection: sqlite3.Connection, id_: str, time: datetime) -> bool:
    """Whether there was one that was not revoked yet."""
    found = connection.execute(
        "UPDATE keys SET revoked_us = ? WHERE id = ? AND revoked_us IS NULL", (microseconds(time), id_)
    )
    return found.rowcount > 0


def every(connection: sqlite3.Connection) -> dict[bytes, ApiKey]:
    """All keys, oldest first."""
    rows = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM keys ORDER BY created_us, rowid").fetchall()
    return {digest: ApiKey(**{n: _read(n, v) for n, v in zip(_NAMES, values, strict=True)}) for digest, *values in rows}


def _stored(name: str, value: Any) -> Any:
    if value is None:
        return None
    return json.dumps(value) if name in _LISTS else microseconds(value) if name in _TIMES else value


def _read(name: str, value: Any) -> Any:
    if value is None:
        return None
    return json.loads(value) if name in _LISTS else time_of(value) if name in _TIMES else value
