"""Prompts that nobody has sent before, of a given number of tokens."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_WORDPIECES: Final = Path(__file__).parents[2] / "datasets" / "minilm_wordpieces.txt"


def new_prompts(tokens: int, *, seed: int) -> Iterator[str]:
    """Questions of ordinary words in random order, each `tokens` long to the encoder, its two own included."""
    pieces = _WORDPIECES.read_text("utf-8").splitlines()[2000:8000]  # from most to less frequent
    words = [piece for piece in pieces if piece.isascii() and piece.isalpha() and len(piece) > 2]
    rng = random.Random(seed)
    while True:
        yield " ".join(rng.choices(words, k=tokens - 3)) + "?"
