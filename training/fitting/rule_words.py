"""The words of a prompt that the field's rules look for.

Counted while a log is read, because examples hold no text; only the keyword baseline uses it.
"""

import re
from typing import Final

RULE_WORDS: Final = (
    *("analyze", "compare", "evaluate", "design", "architect", "debug", "optimize", "trade-off", "pros and cons"),
    *("step by step", "explain why", "reasoning"),
)
"""The words that rule-based routers copy from each other."""

_FOUND: Final = re.compile("|".join(map(re.escape, RULE_WORDS)))


def rule_words(text: str) -> int:
    """How many different RULE_WORDS a text holds, anywhere and in any case, as the copied rules count them."""
    return len(set(_FOUND.findall(text.lower())))
