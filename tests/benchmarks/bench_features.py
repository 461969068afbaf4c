"""Are the features linear in the text, whatever a client sends?"""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from serving.chat import Conversation, read_conversation
from serving.classifier.features import SCAN_CHARS, text_features
from tests.benchmarks.figures import Figure

# Each tempts one of the patterns to look ahead again and again: words, numbers, options, list items, code,
# formulas, headings, blanks, other scripts.
HOSTILE: Final = {
    "one word": "a",
    "hyphens": "a-",
    "apostrophes": "a'b-'",
    "digits": "1",
    "dotted digits": "1.1,",
    "dollars": "$",
    "open formula": "$a",
    "formulas": "\\a^{_{",
    "backslashes": "\\",
    "blanks": " ",
    "blank lines": "\n",
    "tabs": "\t\n ",
    "semicolons": ";",
    "half code": "def class import #include ",
    "brackets": "()=>==```",
    "options": "(A) \nA) ",
    "headings": "Options:\t \n \nChoices: ",
    "list items": "\n        - \n1. ",
    "questions": "?",
    "underscores": "_",
    "capitals": "SELECT",
    "accents": "é",
    "han": "漢",
    "greek": "α-",
    "combining marks": "e\u0301",
    "emoji": "😀",
    "keywords": "why pros trade-off ",
    "quotes": "\"'",
}
MAX_RATIO: Final = 2.0
MAX_GROWTH: Final = 16.0
ROUNDS: Final = 9


def measure(_home: Path) -> Iterator[Figure]:
    """CPU time of a hostile text ÷ that of a shorter one of the same pattern; the worst pattern counts.

    Beyond what is scanned the time should stand still. Within it, eight times the text should take eight
    times the time at most: a pattern that is quadratic takes 64.
    """
    beyond = {name: _times(pattern, 1_000_000, 16_000) for name, pattern in HOSTILE.items()}
    within = {name: _times(pattern, 2 * SCAN_CHARS, SCAN_CHARS // 4) for name, pattern in HOSTILE.items()}
    worst, ratio = _worst(beyond)
    yield Figure("features", f"1 MB ÷ 16 kB, worst pattern: {worst}", ratio, "×", bar=MAX_RATIO)
    worst, ratio = _worst(within)
    yield Figure("features", f"8,000 ÷ 1,000 characters, worst pattern: {worst}", ratio, "×", bar=MAX_GROWTH)
    slowest = max(beyond, key=lambda name: beyond[name][0])
    yield Figure("features", f"CPU of 1 MB, slowest pattern: {slowest}", beyond[slowest][0], "ms")


def _worst(times: dict[str, tuple[float, float]]) -> tuple[str, float]:
    ratios = {name: longer / shorter for name, (longer, shorter) in times.items()}
    worst = max(ratios, key=ratios.__getitem__)
    return worst, ratios[worst]


def _times(pattern: str, *sizes: int) -> tuple[float, float]:
    """Median CPU milliseconds at each size, in turns."""
    texts = [_conversation(pattern, size) for size in sizes]
    times: list[list[float]] = [[] for _ in texts]
    for _ in range(ROUNDS):
        for conversation, taken in zip(texts, times, strict=True):
            started = time.process_time()
            text_features(conversation)
            taken.append(1000 * (time.process_time() - started))
    longer, shorter = map(statistics.median, times)
    return longer, shorter


def _conversation(pattern: str, size: int) -> Conversation:
    text = (pattern * (size // len(pattern) + 1))[:size]
    # A letter, because a conversation of nothing but blanks is refused before it gets here.
    return read_conversation(prompt="a" + text[1:])
