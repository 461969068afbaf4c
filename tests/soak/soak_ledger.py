"""Ten million events of thirty days: how long a report takes, and whether memory stays flat while they are written."""

import random
import statistics
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import psutil

from serving.ledger.events import Cost, Event
from serving.ledger.report import make_report
from serving.ledger.sqlite.store import SqliteLedger
from serving.ledger.usage import Usage
from tests.ledger_events import NOON

EVENTS: Final = 10_000_000
TOGETHER: Final = 20_000
DAYS: Final = 30
USERS: Final = 2_000
MAX_MS: Final = 100.0
MAX_GROWTH_MB: Final = 64.0


def test_a_report_over_ten_million_events_takes_a_tenth_of_a_second_and_writing_them_no_memory(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    process, rng = psutil.Process(), random.Random(0)
    memory: list[float] = []
    started = time.perf_counter()
    for first in range(0, EVENTS, TOGETHER):
        ledger.record([_event(i, rng) for i in range(first, first + TOGETHER)]).result()
        if first % (EVENTS // 10) == 0:
            memory.append(process.memory_info().rss / 2**20)
    print(f"{EVENTS / (time.perf_counter() - started):,.0f} events/s; MB at each tenth: {[round(m) for m in memory]}")
    last = date(2026, 3, 1) + timedelta(days=DAYS - 1)
    taken = []
    for _ in range(9):
        began = time.perf_counter()
        found = make_report(ledger, DAYS, last)
        taken.append(1e3 * (time.perf_counter() - began))
    print(f"report of {DAYS} days, ms: median {statistics.median(taken):.0f}, all {[round(t) for t in taken]}")
    assert found.total.events == EVENTS
    assert found.total.cost_pico_usd == sum(line.cost_pico_usd for line in found.by_model)
    assert statistics.median(taken) <= MAX_MS
    assert max(memory[1:]) - memory[1] <= MAX_GROWTH_MB
    ledger.close()


def _event(i: int, rng: random.Random) -> Event:
    """Not validated, which is not what is measured."""
    return Event.model_construct(
        key=f"e{i}", kind="call", status="ok", time=NOON + timedelta(days=i * DAYS // EVENTS, seconds=i % 40_000),
        request_id=None, decision_id=None, tenant="default", team=f"t{rng.randrange(20)}",
        feature=f"f{rng.randrange(40)}", user=f"u{rng.randrange(USERS)}", session_id=None, model_asked=None,
        model=f"m{rng.randrange(10)}", provider=None, tier=rng.choice(("economy", "standard", "premium")),
        usage=Usage.model_construct(input_tokens=900, output_tokens=80), usage_estimated=False,
        cost=Cost.model_construct(pico_usd=rng.randrange(10**9), source="list", dated=None), latency_ms=700,
        cached=False, wasted=False, error=None, saved={"routing": rng.randrange(10**9)},
    )  # fmt: skip
