"""The ledger as tables for other tools: its events, and its decisions with what became of them."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serving.classifier.quantised import dequantised
from serving.errors import InputError
from serving.ledger.events import SAVINGS, Event
from serving.ledger.request_log import Logged, LoggedDecision
from serving.ledger.store import LedgerStore
from serving.ledger.usage import Usage
from training.private_file import private_file

_AT_ONCE: Final = 1_000
_TIME: Final = pa.timestamp("us", tz="UTC")
_NUMBERS: Final = pa.list_(pa.float32())

_EVENT_TEXTS: Final = (
    "tenant", "key", "kind", "status", "request_id", "completion_id", "decision_id", "team", "feature", "user",
    "session_id", "model_asked", "model", "provider", "tier", "error",
)  # fmt: skip
EVENTS: Final = pa.schema([
    ("time", _TIME), *((name, pa.string()) for name in _EVENT_TEXTS),
    *((name, pa.int64()) for name in (*Usage.model_fields, "latency_ms", "cost_pico_usd")),
    ("price_source", pa.string()), ("price_dated", pa.string()),
    *((name, pa.bool_()) for name in ("usage_estimated", "cached", "wasted")),
    *((f"saved_{kind}_pico_usd", pa.int64()) for kind in SAVINGS),
])  # fmt: skip
"""One row an event; null is unknown."""

_DECISION_TEXTS: Final = (
    "id", "tenant", "router", "policy", "tier", "model", "reason", "encoder", "text_key", "team", "feature", "task",
    "user", "session_id", "request_id", "request",
)  # fmt: skip
DECISIONS: Final = pa.schema([
    ("time", _TIME), *((name, pa.string()) for name in _DECISION_TEXTS),
    *((name, pa.float64()) for name in ("threshold", "propensity", "input_tokens")),
    ("features_version", pa.int64()),
    ("probabilities", pa.string()), ("embedding", _NUMBERS), ("features", _NUMBERS),
    ("calls", pa.string()), ("feedback", pa.string()),
])  # fmt: skip
"""One row a decision. probabilities: a JSON object by tier. calls, the keys of its events, and feedback: JSON lists."""


def export_events(store: LedgerStore, out: Path, since: datetime, until: datetime) -> int:
    """Write the events of that time and say how many; `out` ends in .parquet or .csv. Raises InputError otherwise."""
    return _write(out, EVENTS, map(_event_row, store.events(since, until)))


def export_decisions(store: LedgerStore, out: Path, since: datetime, until: datetime) -> int:
    """Write the decisions of that time with their calls and feedback; as `export_events`."""
    rows = (_decision_row(logged) for logged in store.logged() if since <= logged.decision.time < until)
    return _write(out, DECISIONS, rows)


def _event_row(event: Event) -> dict[str, Any]:
    usage = event.usage or Usage()
    cost = event.cost
    return {
        **event.model_dump(include={"time", *_EVENT_TEXTS, "latency_ms", "usage_estimated", "cached", "wasted"}),
        **usage.model_dump(),
        "cost_pico_usd": None if cost is None else cost.pico_usd,
        "price_source": None if cost is None else cost.source,
        "price_dated": None if cost is None else cost.dated,
        **{f"saved_{kind}_pico_usd": event.saved.get(kind) for kind in SAVINGS},
    }


def _decision_row(logged: Logged) -> dict[str, Any]:
    decision = logged.decision
    plain = ("time", *_DECISION_TEXTS, "threshold", "propensity", "input_tokens", "features_version")
    feedback = [one.model_dump(mode="json", exclude={"tenant"}, exclude_none=True) for one in logged.feedback]
    return {
        **{name: getattr(decision, name) for name in plain},
        "probabilities": json.dumps(decision.probabilities),
        "embedding": _embedding(decision),
        "features": np.frombuffer(decision.features, np.float32).tolist(),
        "calls": json.dumps([call.key for call in logged.calls]),
        "feedback": json.dumps(feedback, ensure_ascii=False),
    }


def _embedding(decision: LoggedDecision) -> list[float] | None:
    if decision.embedding is None or decision.embedding_scale is None:
        return None
    codes = np.frombuffer(decision.embedding, np.int8)[None, :]
    numbers: list[float] = dequantised(codes, np.array([decision.embedding_scale], np.float32))[0].tolist()
    return numbers


def _write(out: Path, schema: Any, rows: Iterable[dict[str, Any]]) -> int:
    writers: dict[str, Callable[[Path, Any, Iterable[dict[str, Any]]], int]] = {
        ".parquet": _write_parquet, ".csv": _write_csv,
    }  # fmt: skip
    if out.suffix not in writers:
        raise InputError(f"must end in .parquet or .csv, not {out.suffix!r}", where=str(out))
    try:
        return writers[out.suffix](out, schema, rows)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", where=str(out)) from None


def _write_parquet(out: Path, schema: Any, rows: Iterable[dict[str, Any]]) -> int:
    written = 0
    with pq.ParquetWriter(out, schema) as writer:
        for part in _parts(rows):
            writer.write_table(pa.Table.from_pylist(part, schema))
            written += len(part)
    return written


def _write_csv(out: Path, schema: Any, rows: Iterable[dict[str, Any]]) -> int:
    """An empty cell is null; lists are JSON, times ISO 8601."""
    written = 0
    with private_file(out) as file:
        writer = csv.DictWriter(file, schema.names)
        writer.writeheader()
        for row in rows:
            texts = {name: json.dumps(value) for name, value in row.items() if isinstance(value, list | bool)}
            writer.writerow({**row, **texts, "time": row["time"].isoformat()})
            written += 1
    return written


def _parts(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    waiting = iter(rows)
    while part := list(islice(waiting, _AT_ONCE)):
        yield part
