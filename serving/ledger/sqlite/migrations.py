"""How the file came to be as it is: every change of it, in order. What has been released is never edited."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from serving.errors import LedgerError

BUSY_S: Final = 10.0  # another worker's group commit takes some ms; a backup or a slow disk takes longer

EVENTS = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    request_id TEXT, decision_id TEXT,
    team TEXT, feature TEXT, user TEXT, session_id TEXT,
    model_asked TEXT, model TEXT, provider TEXT, tier TEXT,
    input_tokens INTEGER, cached_input_tokens INTEGER, cache_write_tokens INTEGER,
    cache_write_1h_tokens INTEGER, input_audio_tokens INTEGER,
    output_tokens INTEGER, reasoning_tokens INTEGER, output_audio_tokens INTEGER,
    usage_estimated INTEGER NOT NULL,
    cost_pico_usd INTEGER, price_source TEXT, price_dated TEXT,
    latency_ms INTEGER,
    cached INTEGER NOT NULL, wasted INTEGER NOT NULL,
    error TEXT,
    saved_routing INTEGER, saved_cache INTEGER, saved_compression INTEGER, saved_limits INTEGER, saved_batch INTEGER,
    UNIQUE (tenant, key)
);
CREATE INDEX events_by_time ON events (time_us);
"""

ROLLUPS = """
CREATE TABLE rollups (
    dimension TEXT NOT NULL,
    day INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    value TEXT NOT NULL,
    requests INTEGER NOT NULL, unpriced_requests INTEGER NOT NULL,
    events INTEGER NOT NULL, unpriced INTEGER NOT NULL, unmetered INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cost_usd INTEGER NOT NULL, cost_pico INTEGER NOT NULL,
    spent_on_saving_usd INTEGER NOT NULL, spent_on_saving_pico INTEGER NOT NULL,
    saved_routing_usd INTEGER NOT NULL, saved_routing_pico INTEGER NOT NULL,
    saved_cache_usd INTEGER NOT NULL, saved_cache_pico INTEGER NOT NULL,
    saved_compression_usd INTEGER NOT NULL, saved_compression_pico INTEGER NOT NULL,
    saved_limits_usd INTEGER NOT NULL, saved_limits_pico INTEGER NOT NULL,
    saved_batch_usd INTEGER NOT NULL, saved_batch_pico INTEGER NOT NULL,
    PRIMARY KEY (dimension, day, tenant, value)
) WITHOUT ROWID;
"""

REQUEST_LOG = """
ALTER TABLE events ADD COLUMN completion_id TEXT;
CREATE INDEX events_by_decision ON events (decision_id) WHERE decision_id IS NOT NULL;
CREATE INDEX events_by_completion ON events (completion_id) WHERE completion_id IS NOT NULL;
CREATE INDEX events_by_request ON events (request_id) WHERE request_id IS NOT NULL;
CREATE TABLE decisions (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    router TEXT NOT NULL, policy TEXT NOT NULL,
    tier TEXT NOT NULL, model TEXT NOT NULL, reason TEXT NOT NULL,
    threshold REAL NOT NULL, propensity REAL NOT NULL, probabilities TEXT NOT NULL,
    encoder TEXT, embedding BLOB, embedding_scale REAL,
    features BLOB NOT NULL, features_version INTEGER NOT NULL,
    input_tokens REAL NOT NULL, text_key TEXT NOT NULL,
    team TEXT, feature TEXT, task TEXT, user TEXT, session_id TEXT, request_id TEXT,
    request TEXT
);
CREATE INDEX decisions_by_time ON decisions (time_us);
CREATE INDEX decisions_by_request ON decisions (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX decisions_by_session ON decisions (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX decisions_by_user ON decisions (user) WHERE user IS NOT NULL;
CREATE TABLE feedback (
    seq INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    about TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    acceptable INTEGER, score REAL, kind TEXT,
    comment TEXT
);
CREATE INDEX feedback_by_about ON feedback (about);
CREATE INDEX feedback_by_time ON feedback (time_us);
"""

BUDGETS = """
CREATE TABLE budgets (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, scope TEXT NOT NULL, value TEXT NOT NULL, period TEXT NOT NULL,
    zone TEXT NOT NULL, limit_pico_usd INTEGER NOT NULL, hard INTEGER NOT NULL, alert_at REAL NOT NULL,
    UNIQUE (tenant, scope, value, period)
);
CREATE TABLE budget_spend (
    budget INTEGER NOT NULL, begin_us INTEGER NOT NULL,
    spent_usd INTEGER NOT NULL, spent_pico INTEGER NOT NULL,
    told INTEGER NOT NULL,
    PRIMARY KEY (budget, begin_us)
) WITHOUT ROWID;
CREATE TABLE reservations (
    id TEXT NOT NULL, tenant TEXT NOT NULL, budget INTEGER NOT NULL, begin_us INTEGER NOT NULL,
    pico_usd INTEGER NOT NULL, expires_us INTEGER NOT NULL,
    PRIMARY KEY (id, tenant, budget)
) WITHOUT ROWID;
CREATE INDEX reservations_by_budget ON reservations (budget, begin_us);
CREATE INDEX reservations_by_expiry ON reservations (expires_us);
"""

NAMES = """
CREATE INDEX events_by_user ON events (user) WHERE user IS NOT NULL;
CREATE INDEX events_by_session ON events (session_id) WHERE session_id IS NOT NULL;
"""

_ESTIMATED_BY: Final = {"total": "''", **{name: name for name in ("kind", "model", "tier", "feature", "team", "user")}}
ESTIMATED = (
    "ALTER TABLE rollups ADD COLUMN estimated INTEGER NOT NULL DEFAULT 0;"
    "CREATE INDEX estimated_events ON events (time_us) WHERE usage_estimated;"  # one look at all events, not seven
    + "".join(
        f"UPDATE rollups SET estimated = found.events FROM ("
        f"SELECT time_us / 86400000000 + 719163 AS day, tenant, COALESCE({column}, '') AS value, COUNT(*) AS events "
        f"FROM events WHERE usage_estimated GROUP BY 1, 2, 3) AS found "
        f"WHERE dimension = '{dimension}' AND rollups.day = found.day AND rollups.tenant = found.tenant "
        f"AND rollups.value = found.value;"
        for dimension, column in _ESTIMATED_BY.items()
    )
    + "DROP INDEX estimated_events;"
)

KEYS = """
CREATE TABLE keys (
    digest BLOB PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT,
    tenant TEXT NOT NULL,
    scopes TEXT NOT NULL,
    models TEXT,
    requests_per_minute INTEGER, tokens_per_minute INTEGER,
    created_us INTEGER NOT NULL, revoked_us INTEGER
);
ALTER TABLE events ADD COLUMN api_key TEXT;
ALTER TABLE events ADD COLUMN processing TEXT;
CREATE TEMP TABLE keyless AS SELECT * FROM rollups WHERE dimension = 'total';
UPDATE keyless SET dimension = 'api_key';
INSERT INTO rollups SELECT * FROM keyless;
DROP TABLE keyless;
"""
"""What was recorded before there were keys came with none."""

MIGRATIONS: Final[tuple[str, ...]] = (EVENTS + ROLLUPS, REQUEST_LOG, BUDGETS, NAMES, ESTIMATED, KEYS)


def connect(path: Path) -> sqlite3.Connection:
    """A connection to the file, to be used by one thread; what it commits survives a crash. Raises LedgerError."""
    try:
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}; check the disk, the folder's rights and whether it is a ledger") from None
    return connection


def migrate(path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the file up to date, or make it. Several workers may try at once: one does it, the others wait.

    Raises LedgerError when it cannot be written, or was written by a later version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(connect(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            (done,) = connection.execute("PRAGMA user_version").fetchone()
            if done > len(migrations):
                raise LedgerError(
                    f"{path}: has schema {done}, and this version of Tierwise knows {len(migrations)}; "
                    "update Tierwise, or point TIERWISE_HOME elsewhere"
                )
            for migration in migrations[done:]:
                for statement in filter(str.strip, migration.split(";")):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(migrations)}")
            connection.execute("COMMIT")
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(f"{path}: cannot be prepared: {error}; check the disk and the folder's rights") from None
