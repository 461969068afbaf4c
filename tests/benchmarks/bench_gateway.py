"""What does a call through the service cost, beyond a pass-through with nothing in it?

Both stand before the same stand-in and are asked the same in turns, many at once. What is counted is the CPU time of
their processes, in steps of 10 ms.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from serving.ledger.events import Event
from serving.ledger.sqlite.store import SqliteLedger
from serving.routing.promoted import PromotedRouter
from tests.benchmarks.calls import load, module, paced, told
from tests.benchmarks.figures import Figure
from tests.benchmarks.running import cpu_s, running_service
from tests.server import free_port

CALLS: Final = 300  # a block
STREAMS: Final = 100
BLOCKS: Final = 5
BETWEEN_S: Final = 0.002  # events come one by one
MAX_ADDED_MS: Final = 1.0
MAX_ADDED_US_A_CHUNK: Final = 30.0
LATENCY_S: Final = 10.0
MAX_P50_MS: Final = 3.0
MAX_P99_MS: Final = 12.0


def measure(home: Path) -> Iterator[Figure]:
    """With a prompt whose embedding is remembered, so that the encoder's pass is not in it."""
    promoted = PromotedRouter(home)
    promoted.refresh()
    models = [model for tier in promoted.router.tiers for model in tier.models]
    at, bare_at = free_port(), free_port()
    options = ["--port", str(at), "--between", str(BETWEEN_S), "--models", *models]
    url = f"http://127.0.0.1:{at}/v1"
    with (
        module("tests.stand_in", *options, ready=f"{url}/models"),
        module("tests.benchmarks.bare", str(bare_at), url, ready=f"http://127.0.0.1:{bare_at}/") as bare,
        told({"TIERWISE_UPSTREAMS": json.dumps([{"name": "stand-in", "base_url": url, "key_env": "STAND_IN_KEY"}])}),
        running_service(home) as service,
    ):
        asked = {f"http://127.0.0.1:{service.port}/v1": ("auto", service.worker()),
                 f"http://127.0.0.1:{bare_at}/v1": (models[0], bare)}  # fmt: skip
        yield from _compared(asked)
        yield from _late(asked, home)


def _compared(asked: Mapping[str, tuple[str, psutil.Process]]) -> Iterator[Figure]:
    whole: list[list[float]] = [[], []]
    streamed: list[list[float]] = [[], []]
    events = 0
    for block in range(BLOCKS + 1):  # the first warms up
        for i, (url, (model, process)) in enumerate(asked.items()):
            whole_ms, _ = _cpu_ms(url, model, process, CALLS, stream=False)
            stream_ms, events = _cpu_ms(url, model, process, STREAMS, stream=True)
            if block:
                whole[i].append(whole_ms)
                streamed[i].append(stream_ms)
    ours, bare = map(statistics.median, whole)
    added = statistics.median([a - b for a, b in zip(*whole, strict=True)])
    yield Figure("gateway", "CPU of a call through the service", ours, "ms")
    yield Figure("gateway", "CPU of a call through a bare pass-through", bare, "ms")
    yield Figure("gateway", "what the service adds to a call", added, "ms", MAX_ADDED_MS)
    chunk_us = statistics.median(
        [
            1e3 * ((s - w) - (t - v)) / events
            for s, w, t, v in zip(streamed[0], whole[0], streamed[1], whole[1], strict=True)
        ]
    )
    yield Figure("gateway", "what it adds to an event of a stream", chunk_us, "µs", MAX_ADDED_US_A_CHUNK)


def _late(asked: Mapping[str, tuple[str, psutil.Process]], home: Path) -> Iterator[Figure]:
    """What the service adds to the time of a call at half of the load that it can bear, beside two commits of the
    ledger at that rate."""
    (ours, (auto, _)), (bare, (model, _)) = asked.items()
    began = time.perf_counter()
    asyncio.run(load(ours, auto, CALLS))
    rate = CALLS / (time.perf_counter() - began) / 2
    calls = round(rate * LATENCY_S)
    whole, passed = (asyncio.run(paced(url, name, calls, rate)) for url, name in ((ours, auto), (bare, model)))
    commits = _commits(home, calls, rate)
    yield Figure("gateway", "calls a second in that measurement", rate, "1/s")
    for place, bar in ((50, MAX_P50_MS), (99, MAX_P99_MS)):
        told, straight, commit = (_percentile(times, place) for times in (whole, passed, commits))
        yield Figure("gateway", f"p{place} of a call; by a bare pass-through {straight:.3g}", told, "ms")
        yield Figure("gateway", f"p{place} of a commit of the ledger", commit, "ms")
        yield Figure("gateway", f"p{place} that the service adds beside two commits", told - straight - 2 * commit,
                     "ms", bar)  # fmt: skip


def _commits(home: Path, calls: int, rate: float) -> list[float]:
    """Milliseconds until an event is on disk, of events that come at that rate."""
    times = []
    with closing(SqliteLedger(home / "commits.db")) as ledger:
        begun = time.perf_counter()
        for number in range(calls):
            time.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            at = time.perf_counter()
            ledger.record([Event(key=str(number), kind="call", status="ok", time=datetime.now(UTC))]).result()
            times.append(1e3 * (time.perf_counter() - at))
    return times


def _percentile(times: Sequence[float], place: int) -> float:
    return statistics.quantiles(times, n=100)[place - 1]


def _cpu_ms(url: str, model: str, process: psutil.Process, calls: int, *, stream: bool) -> tuple[float, int]:
    """CPU of the process for each call, and how many events a stream has."""
    before = cpu_s(process)
    events = asyncio.run(load(url, model, calls, stream=stream))
    return 1e3 * (cpu_s(process) - before) / calls, events
