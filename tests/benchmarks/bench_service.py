"""How soon does the service answer, what does it hold, and what does HTTP add to the encoder pass?"""

import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import psutil

from serving.classifier.encoder import Encoder
from tests.benchmarks.figures import Figure
from tests.benchmarks.prompts import new_prompts
from tests.benchmarks.running import Client, Service, cpu_s, promoted_encoder, running_service

STARTS: Final = 3
BLOCKS, BLOCK = 5, 200  # requests with new prompts; the CPU time of a process is counted in steps of 10 ms
REPEATS: Final = 2000
MAX_READY_S: Final = 5
MAX_RSS_MB: Final = 400
MAX_OVERHEAD_MS: Final = 1.5
MAX_REPEATED_MS: Final = 1.0


def measure(home: Path) -> Iterator[Figure]:
    """Start `tierwise serve` a few times; send the last one new prompts, then one prompt again and again."""
    ready = []
    for _ in range(STARTS - 1):
        with running_service(home) as service:
            ready.append(service.ready_s)
    with running_service(home) as service:
        ready.append(service.ready_s)
        yield Figure("service", "start until the promoted router serves", statistics.median(ready), "s", MAX_READY_S)
        yield Figure("service", "CPU of a start", service.cpu_s, "s")
        yield from _under_load(service, promoted_encoder(home))


def _under_load(service: Service, encoder: Encoder) -> Iterator[Figure]:
    worker, client = service.worker(), Client(service.port)
    prompts = new_prompts(64, seed=1)
    for text in islice(prompts, 50):  # until both are warm
        _routed(client, text)
        encoder.embed(text)

    request_ms, pass_ms = [], []
    for _ in range(BLOCKS):
        request, alone = _in_turns(worker, client, encoder, list(islice(prompts, BLOCK)))
        request_ms.append(request)
        pass_ms.append(alone)
    added = [request - alone for request, alone in zip(request_ms, pass_ms, strict=True)]
    yield Figure("service", "CPU of /route, new prompt of 64 tokens", statistics.median(request_ms), "ms")
    yield Figure("service", "the same beyond the encoder pass", statistics.median(added), "ms", MAX_OVERHEAD_MS)

    text, before = next(prompts), cpu_s(worker)
    for _ in range(REPEATS):
        _routed(client, text)
    repeated_ms = 1000 * (cpu_s(worker) - before) / REPEATS
    yield Figure("service", "CPU of /route, repeated prompt of 64 tokens", repeated_ms, "ms", MAX_REPEATED_MS)
    yield Figure("service", "memory of the worker after load", worker.memory_info().rss / 1e6, "MB", MAX_RSS_MB)


def _in_turns(worker: psutil.Process, client: Client, encoder: Encoder, texts: Sequence[str]) -> tuple[float, float]:
    """CPU milliseconds of the worker for each request, and of this process for each pass over the same text.

    In turns, so that both wake up to a core as cold and a machine as busy.
    """
    alone_s, before = 0.0, cpu_s(worker)
    for text in texts:
        _routed(client, text)
        started = time.process_time()
        encoder.embed(text)
        alone_s += time.process_time() - started
    return 1000 * (cpu_s(worker) - before) / len(texts), 1000 * alone_s / len(texts)


def _routed(client: Client, text: str) -> None:
    status, decision = client.route(text)
    if status != 200 or decision["reason"] == "fallback":
        raise RuntimeError(f"/route answered {status}: {decision}")
