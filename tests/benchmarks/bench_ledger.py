"""How many events a second become durable, how long one waits, and what it costs a request?"""

import random
import statistics
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from serving.ledger.events import Event
from serving.ledger.prices import PriceBook
from serving.ledger.recorded import read_call
from serving.ledger.sqlite.migrations import connect, migrate
from serving.ledger.sqlite.rollups import Rollups
from serving.ledger.sqlite.rows import row_of
from serving.ledger.sqlite.store import INSERT, SqliteLedger
from tests.benchmarks.figures import Figure

PRODUCERS: Final = 64
SINGLE: Final = 300
TOGETHER: Final = 20_000
PACED: Final = 500  # events a second
PACED_S: Final = 6
CALL: Final = {
    "model": "gpt-4o-mini",
    "usage": {"prompt_tokens": 900, "completion_tokens": 80, "prompt_tokens_details": {"cached_tokens": 300}},
    "metadata": {"team": "search", "feature": "summary"},
    "user": "u-17",
}


def measure(home: Path) -> Iterator[Figure]:
    """The files are this benchmark's own. The ratio is to the same writes, each with a commit of its own."""
    alone = _one_by_one(home / "alone.db")
    ledger = SqliteLedger(home / "ledger-benchmark.db")
    together, cpu_ms = _together(ledger)
    yield Figure("ledger", "durable events a second, one by one", alone, "1/s")
    yield Figure("ledger", f"durable events a second, {PRODUCERS} producers", together, "1/s")
    yield Figure("ledger", "the same ÷ one by one", together / alone, "×", bar=20, at_least=True)
    yield Figure("ledger", "CPU of an event, the writer's thread included", cpu_ms, "ms")
    waited = _paced(ledger)
    yield Figure("ledger", f"median wait at {PACED} events/s", 1e3 * float(np.quantile(waited, 0.5)), "ms")
    yield Figure("ledger", f"p99 wait at {PACED} events/s", 1e3 * float(np.quantile(waited, 0.99)), "ms", bar=25)
    ledger.close()
    book = PriceBook()
    yield Figure("ledger", "CPU to read and price a call", _cpu_ms(lambda: read_call(dict(CALL), book, ())), "ms")
    yield Figure("ledger", "CPU on the request's path to record it", _handing_over(home), "ms", bar=0.1)


def _events(first: int, count: int) -> list[Event]:
    """As a busy service has them: some models, teams and users."""
    rng = random.Random(first)
    made = []
    for i in range(first, first + count):
        who = {"team": rng.choice(["search", "support", "legal"]), "feature": rng.choice(["summary", "chat"])}
        made.append(read_call(CALL | {"key": f"e{i}", "metadata": who, "user": f"u{rng.randrange(200)}"}, BOOK, ()))
    return made


BOOK: Final = PriceBook()


def _one_by_one(path: Path) -> float:
    migrate(path)
    connection = connect(path)
    events = _events(0, SINGLE)
    started = time.perf_counter()
    for event in events:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(INSERT, row_of(event))
        sums = Rollups()
        sums.add(event)
        sums.write(connection)
        connection.execute("COMMIT")
    rate = SINGLE / (time.perf_counter() - started)
    connection.close()
    return rate


def _together(ledger: SqliteLedger) -> tuple[float, float]:
    """Events a second, and CPU ms of each in the whole process."""
    parts = [_events(10**6 * (i + 1), TOGETHER // PRODUCERS) for i in range(PRODUCERS)]

    def produce(events: list[Event]) -> None:
        for event in events:
            ledger.record([event]).result()

    threads = [threading.Thread(target=produce, args=(part,)) for part in parts]
    started, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = sum(map(len, parts))
    return count / (time.perf_counter() - started), 1e3 * (time.process_time() - cpu) / count


def _paced(ledger: SqliteLedger) -> list[float]:
    """Seconds from handing an event over to its commit, at an even pace, whoever waits for whom."""
    events = _events(10**9, PACED * PACED_S)
    waited: list[float] = []
    started = time.perf_counter()
    for i, event in enumerate(events):
        time.sleep(max(0.0, started + i / PACED - time.perf_counter()))
        handed = time.perf_counter()
        ledger.record([event]).add_done_callback(lambda _, at=handed: waited.append(time.perf_counter() - at))
    deadline = time.perf_counter() + 10
    while len(waited) < len(events) and time.perf_counter() < deadline:
        time.sleep(0.01)
    return waited


def _handing_over(home: Path) -> float:
    """CPU of the calling thread alone, in ms."""
    ledger = SqliteLedger(home / "path-benchmark.db")
    taken = []
    for event in _events(0, 2000):
        began = time.thread_time()
        future = ledger.record([event])
        taken.append(time.thread_time() - began)
        if len(taken) % 100 == 0:
            future.result()
    ledger.close()
    return 1e3 * statistics.fmean(taken)


def _cpu_ms(run: object) -> float:
    assert callable(run)
    began = time.thread_time()
    for _ in range(500):
        run()
    return 1e3 * (time.thread_time() - began) / 500


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory(dir=".") as folder:
        print(datetime.now(UTC).isoformat(timespec="seconds"))
        for figure in measure(Path(folder)):
            print(figure.json_line())
