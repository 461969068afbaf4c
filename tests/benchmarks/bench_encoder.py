"""What an embedding costs in CPU time, tokenising included, beside the bare fp32 arithmetic of its dense layers.

python -m tests.benchmarks.bench_encoder prints one JSON line for each length of text.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from serving.classifier.encoder import Encoder
from training.encoders import DEFAULT_ENCODER, build_default_encoder

SENTENCE = "which model is enough for this prompt and what does it cost when the answer is wrong "  # 17 tokens
ROUNDS = 60
DENSE = ((384, 1152), (384, 384), (384, 1536), (1536, 384))  # query, key and value; attention output; feed-forward


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / DEFAULT_ENCODER.digest
        build_default_encoder(folder)
        encoder = Encoder.load(folder)
    texts = {str(tokens): _text(encoder, tokens) for tokens in (16, 64, 256)} | {"256 of 1 MB": SENTENCE * 12_000}
    for name, text in texts.items():
        tokens = len(encoder.tokenize(text)[0])
        with threadpool_limits(1):  # fp32 on one thread, as the encoder runs
            embed_ms, fp32_ms = _cpu_ms(lambda text=text: encoder.embed(text), _dense_layers(tokens))
        line = {"benchmark": "encoder", "tokens": name, "cpu_ms": embed_ms, "fp32_dense_layers_cpu_ms": fp32_ms}
        print(json.dumps(line | {"ratio": round(embed_ms / fp32_ms, 2)}), flush=True)


def _text(encoder: Encoder, tokens: int) -> str:
    """So many tokens of plain words, of which each is one token."""
    text = " ".join((SENTENCE * 16).split()[: tokens - 2])
    assert len(encoder.tokenize(text)[0]) == tokens
    return text


def _dense_layers(tokens: int) -> Callable[[], None]:
    rng = np.random.default_rng(0)
    layers = [
        (rng.normal(size=(tokens, inputs)).astype(np.float32), rng.normal(size=(inputs, outputs)).astype(np.float32))
        for inputs, outputs in DENSE * 6
    ]

    def run() -> None:
        for x, weight in layers:
            x @ weight

    return run


def _cpu_ms(*runs: Callable[[], object]) -> list[float]:
    """The median CPU time of each, in turns: a busy machine slows all alike, and caches are as cold as in a service."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, taken in zip(runs, times, strict=True):
            started = time.process_time()
            run()
            taken.append(1000 * (time.process_time() - started))
    return [round(statistics.median(taken), 2) for taken in times]


if __name__ == "__main__":
    main()
