"""Which texts share eight words in a row: a question that stands in two tables, or a near copy of it."""

import re
from collections.abc import Iterable
from typing import Final

_WORD: Final = re.compile(r"\w+")
_IN_A_ROW: Final = 8
Row = tuple[str, ...]


def rows_of_words(text: str) -> set[Row]:
    """Every eight words in a row, in lower case; of a shorter text, all its words."""
    words = _WORD.findall(text.lower())
    return {tuple(words[i : i + _IN_A_ROW]) for i in range(max(len(words) - _IN_A_ROW + 1, 1))}


def sharing(texts: Iterable[str], others: Iterable[str]) -> list[bool]:
    """For each of `texts` whether it shares eight words in a row with one of `others`."""
    known = set().union(*map(rows_of_words, others))
    return [not known.isdisjoint(rows_of_words(text)) for text in texts]
