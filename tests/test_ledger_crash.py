"""Events that were acknowledged are there after the process was killed, once each, and the sums are theirs."""

import random
import subprocess
import sys
import threading
from collections import defaultdict
from datetime import UTC, date, datetime
from pathlib import Path

from serving.ledger.events import Event
from serving.ledger.sqlite.rollups import DIMENSIONS
from serving.ledger.sqlite.store import SqliteLedger
from tests.ledger_events import random_event

EVENTS = 50_000
KILLS = 10
ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def test_fifty_thousand_events_survive_ten_kills(tmp_path: Path) -> None:
    path, rng = tmp_path / "ledger.db", random.Random(0)
    acknowledged: set[int] = set()
    for run in range(KILLS + 1):
        kill_after = None if run == KILLS else rng.randrange(300, EVENTS // (KILLS + 2))
        # A client whose call was cut off sends it again: so does this one, and some that were acknowledged with it.
        first = max(0, min(set(range(EVENTS)) - acknowledged) - 20)
        acknowledged |= _run(path, first, EVENTS, kill_after)
    assert acknowledged == set(range(EVENTS))

    ledger = SqliteLedger(path)
    kept = list(ledger.events(*ALWAYS))
    assert len(kept) == EVENTS
    assert {(one.tenant, one.key): one for one in kept} == {
        (one.tenant, one.key): one for one in (random_event(f"e{i}", random.Random(i)) for i in range(EVENTS))
    }
    for dimension in DIMENSIONS:
        assert _read_sums(ledger, dimension) == _worked_out(kept, dimension)
    ledger.close()


def _run(path: Path, first: int, last: int, kill_after: int | None) -> set[int]:
    """The numbers that a producer acknowledged before it was killed, after so many lines of them."""
    command = [sys.executable, "-m", "tests.ledger_producer", str(path), str(first), str(last), "16"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found: set[int] = set()
    for line in process.stdout:
        if line.endswith("\n"):
            found.add(int(line))
        if kill_after is not None and len(found) == kill_after:
            threading.Timer(random.Random(kill_after).random() / 50, process.kill).start()  # in the midst of a commit
    process.stdout.close()
    assert process.wait() == (0 if kill_after is None else -9)
    return found


def _read_sums(ledger: SqliteLedger, dimension: str) -> dict[object, tuple[int, ...]]:
    parts = ledger.totals(dimension, date(2026, 1, 1), date(2026, 12, 31), daily=True)
    return {
        (part.day, part.value): (part.events, part.cost_pico_usd, part.saved_pico_usd[0], part.unpriced)
        for part in parts
        if part.events
    }


def _worked_out(events: list[Event], dimension: str) -> dict[object, tuple[int, ...]]:
    sums: defaultdict[object, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for one in events:
        of = sums[one.time.date(), None if dimension == "total" else getattr(one, dimension)]
        of[0] += 1
        of[1] += one.cost.pico_usd if one.cost else 0
        of[2] += one.saved.get("routing", 0)
        of[3] += one.cost is None and one.kind != "cache_hit"
    return {key: tuple(values) for key, values in sums.items()}
