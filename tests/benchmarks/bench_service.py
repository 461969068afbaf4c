"""How soon does the service answer, what does it hold, and what does HTTP add to the encoder pass?"""

import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import psutil

from serving.classifier.encoder import Encoder
from serving.routing.promoted import PromotedRouter
from tests.benchmarks.figures import Figure
from tests.benchmarks.prompts import new_prompts
from tests.benchmarks.running import Client, Service, running_service

STARTS: Final = 3
BLOCKS, BLOCK = 8, 80  # requests with new prompts
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
        yield from _under_load(service, _encoder(home))


def _under_load(service: Service, encoder: Encoder) -> Iterator[Figure]:
    worker, client = service.worker(), Client(service.port)
    prompts = new_prompts(64, seed=1)
    for text in islice(prompts, 50):  # until both are warm
        _routed(client, [text])
        encoder.embed(text)

    request_ms, pass_ms = [], []
    for _ in range(BLOCKS):
        texts = list(islice(prompts, BLOCK))
        request_ms.append(_worker_cpu_ms(worker, client, texts))
        pass_ms.append(_encoder_cpu_ms(encoder, texts))
    added = [request - alone for request, alone in zip(request_ms, pass_ms, strict=True)]
    yield Figure("service", "CPU of /route, new prompt of 64 tokens", statistics.median(request_ms), "ms")
    yield Figure("service", "the same beyond the encoder pass", statistics.median(added), "ms", MAX_OVERHEAD_MS)

    repeated_ms = _worker_cpu_ms(worker, client, [next(prompts)] * REPEATS)
    yield Figure("service", "CPU of /route, repeated prompt of 64 tokens", repeated_ms, "ms", MAX_REPEATED_MS)
    yield Figure("service", "memory of the worker after load", worker.memory_info().rss / 1e6, "MB", MAX_RSS_MB)


def _encoder(home: Path) -> Encoder:
    """The encoder of the promoted router, in this process."""
    promoted = PromotedRouter(home)
    promoted.refresh()
    memo = promoted.router.classifier.memo
    assert memo is not None, promoted.problem
    return memo.encoder


def _worker_cpu_ms(worker: psutil.Process, client: Client, texts: Sequence[str]) -> float:
    """CPU milliseconds of the worker for each of the requests, user and system."""
    before = worker.cpu_times()
    _routed(client, texts)
    after = worker.cpu_times()
    return 1000 * (after.user + after.system - before.user - before.system) / len(texts)


def _routed(client: Client, texts: Sequence[str]) -> None:
    for text in texts:
        status, decision = client.route(text)
        if status != 200 or decision["reason"] == "fallback":
            raise RuntimeError(f"/route answered {status}: {decision}")


def _encoder_cpu_ms(encoder: Encoder, texts: Sequence[str]) -> float:
    started = time.process_time()
    for text in texts:
        encoder.embed(text)
    return 1000 * (time.process_time() - started) / len(texts)
