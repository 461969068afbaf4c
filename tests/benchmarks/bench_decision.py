"""What does a decision cost beside the bare encoder pass on the same text?"""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from serving.chat import read_conversation
from serving.routing.promoted import PromotedRouter
from serving.routing.router import Router
from tests.benchmarks.figures import Figure
from tests.benchmarks.prompts import new_prompts

ROUNDS: Final = {16: 300, 64: 300, 256: 80}  # tokens: prompts
BARS: Final = {64: 1.15}
MAX_REST_MS: Final = 1.0


def measure(home: Path) -> Iterator[Figure]:
    """Every prompt is new: decided, and embedded alone, in alternating order; then decided again, remembered."""
    promoted = PromotedRouter(home)
    if not promoted.refresh() or promoted.problem:
        raise RuntimeError(promoted.problem)
    for tokens, rounds in ROUNDS.items():
        ratio, embed_ms, rest_ms = _measured(promoted.router, tokens, rounds)
        yield Figure("decision", f"decision ÷ encoder pass, {tokens} tokens", ratio, "×", bar=BARS.get(tokens))
        yield Figure("decision", f"CPU of the encoder pass, {tokens} tokens", embed_ms, "ms")
        yield Figure("decision", f"CPU of all but the encoder, {tokens} tokens", rest_ms, "ms", bar=MAX_REST_MS)


def _measured(router: Router, tokens: int, rounds: int) -> tuple[float, float, float]:
    """Medians: decision ÷ encoder pass on the same text, CPU ms of the encoder pass, CPU ms of a remembered one."""
    memo = router.classifier.memo
    assert memo is not None
    ratios, passes, rests = [], [], []
    prompts = new_prompts(tokens, seed=tokens)
    for turn, text in zip(range(rounds), prompts, strict=False):

        def decide(text: str = text) -> object:
            return router.decide(read_conversation(prompt=text))

        def embed(text: str = text) -> object:
            return memo.encoder.embed(text)

        assert memo.cached(text) is None, "the prompt is not new"
        if turn % 2:
            decide_ms, embed_ms = _cpu_ms(decide), _cpu_ms(embed)
        else:
            embed_ms, decide_ms = _cpu_ms(embed), _cpu_ms(decide)
        ratios.append(decide_ms / embed_ms)
        passes.append(embed_ms)
        embed(f"{text} again")  # leaves the processor's caches as they are after a pass
        rests.append(_cpu_ms(decide))
    return statistics.median(ratios), statistics.median(passes), statistics.median(rests)


def _cpu_ms(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return 1000 * (time.process_time() - started)
