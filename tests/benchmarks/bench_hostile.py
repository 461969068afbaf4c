"""Does a hostile request cost time in proportion to its size, and how much does a megabyte of it cost the service?"""

import gc
import http.client
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pydantic_core import from_json

from serving.chat import read_conversation
from serving.classifier.encoder import Encoder
from serving.classifier.features import text_features
from tests.benchmarks.bench_features import HOSTILE
from tests.benchmarks.figures import Figure
from tests.benchmarks.running import Service, cpu_s, promoted_encoder, running_service

LARGE, SMALL = 1_000_000, 125_000  # bytes of a body
ROUNDS: Final = 7
MAX_GROWTH: Final = 16.0  # of eight times the size: linear is 8, quadratic 64
REQUESTS: Final = 20  # of each shape; the CPU time of a process is counted in steps of 10 ms
MAX_REQUEST_MS: Final = 250


def _repeated(start: str, piece: str, end: str) -> Callable[[int], bytes]:
    """A body of the wanted size: `piece` as often as fits between `start` and `end`."""

    def body(size: int) -> bytes:
        room = size - len((start + end).encode())
        return (start + piece * (room // len(piece.encode())) + end).encode()

    return body


def _prompt(pattern: str) -> Callable[[int], bytes]:
    return _repeated('{"prompt": "a', json.dumps(pattern, ensure_ascii=False)[1:-1], '"}')


# What makes a body expensive to read rather than its text to judge.
SHAPES: Final = {
    "messages": _repeated('{"messages": [', '{"role":"user","content":"a"},', '{"role": "user", "content": "a"}]}'),
    "turns that call tools": _repeated('{"messages": [', '{"role":"assistant"},', '{"role": "user", "content": "a"}]}'),
    "parts": _repeated('{"prompt": [', '{"type":"text","text":"a"},', '{"type": "text", "text": "a"}]}'),
    "images": _repeated('{"prompt": [', '{"type":"image"},', '{"type": "text", "text": "a"}]}'),
    "tools": _repeated('{"prompt": "a", "tools": [', "{},", "{}]}"),
    "lists in metadata": _repeated('{"prompt": "a", "metadata": [', "[" * 190 + "]" * 190 + ",", "0]}"),
    "one key again and again": _repeated("{", '"prompt":1,', '"prompt": "a"}'),
    "escapes": _repeated('{"prompt": "a', "\\u0041", '"}'),
    "surrogate pairs": _repeated('{"prompt": "a', "\\ud83d\\ude00", '"}'),
    "long integers": _repeated('{"prompt": "a", "metadata": [', "9" * 4000 + ",", "0]}"),
    "numbers": _repeated('{"prompt": "a", "metadata": [', "1.7e308,", "0]}"),
    "never closed": _repeated('{"prompt": "a', "[", ""),
    "too deep": _repeated('{"prompt": "a", "tools": ', "[", ""),
}


def measure(home: Path) -> Iterator[Figure]:
    """The way of a body to the model's input, at two sizes in turns; then a megabyte of each kind sent to the service.

    Bodies that are refused count too.
    """
    encoder = promoted_encoder(home)
    bodies = {name: _prompt(pattern) for name, pattern in HOSTILE.items()} | SHAPES
    times = {name: _times(body, encoder) for name, body in bodies.items()}
    worst = max(times, key=lambda name: times[name][0] / times[name][1])
    slowest = max(times, key=lambda name: times[name][0])
    ratio = times[worst][0] / times[worst][1]
    yield Figure("hostile", f"1 MB ÷ 125 kB, read to tokenised, worst: {worst}", ratio, "×", MAX_GROWTH)
    yield Figure("hostile", f"CPU of 1 MB, read to tokenised, slowest: {slowest}", times[slowest][0], "ms")
    with running_service(home) as service:
        requests = {name: _request_ms(service, body) for name, body in bodies.items()}
    slowest = max(requests, key=requests.__getitem__)
    yield Figure("hostile", "CPU of /route, 1 MB, median kind", statistics.median(requests.values()), "ms")
    yield Figure("hostile", f"CPU of /route, 1 MB, slowest: {slowest}", requests[slowest], "ms", MAX_REQUEST_MS)


def _times(body: Callable[[int], bytes], encoder: Encoder) -> tuple[float, float]:
    """Median CPU milliseconds at both sizes, in turns.

    Without the garbage collector, whose walks depend on what else this process holds; the service has it on.
    """
    taken: dict[int, list[float]] = {LARGE: [], SMALL: []}
    gc.disable()
    for _ in range(ROUNDS):
        for size, times in taken.items():
            sent = body(size)
            started = time.process_time()
            _to_model_input(sent, encoder)
            times.append(1000 * (time.process_time() - started))
    gc.enable()
    return statistics.median(taken[LARGE]), statistics.median(taken[SMALL])


def _to_model_input(body: bytes, encoder: Encoder) -> None:
    try:
        request = from_json(body, allow_inf_nan=False)
    except ValueError:  # refused
        return
    conversation = read_conversation(messages=request.get("messages"), prompt=request.get("prompt"))
    text_features(conversation)
    encoder.tokenize(conversation.last_user_text)


def _request_ms(service: Service, body: Callable[[int], bytes]) -> float:
    """CPU milliseconds of the worker a request; each a little shorter, so that no long text is one it remembers."""
    worker, connection = service.worker(), http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    before = cpu_s(worker)
    for i in range(REQUESTS):
        connection.request("POST", "/route", body(LARGE - 50 * i))
        response = connection.getresponse()
        response.read()
        if response.status not in (200, 400):
            raise RuntimeError(f"/route answered {response.status}")
    connection.close()
    return 1000 * (cpu_s(worker) - before) / REQUESTS
