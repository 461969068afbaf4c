"""Sums of money that no number of calls can overflow: whole dollars in one column, pico-USD below a dollar in another.

SQLite turns a sum beyond 64 bits, 9.2 million dollars in pico-USD, into a float without a word.
"""

from typing import Final

from serving.tiers import PICO_PER_USD

USD: Final = "_usd"
PICO: Final = "_pico"


def split(pico_usd: int) -> tuple[int, int]:
    """Whole dollars, rounded down, and the pico-USD above them, 0 to 10^12 - 1."""
    return divmod(pico_usd, PICO_PER_USD)


def joined(usd: int | None, pico: int | None) -> int:
    """The amount in pico-USD again; sums of both columns may be given, or nothing."""
    return (usd or 0) * PICO_PER_USD + (pico or 0)


def added(name: str) -> str:
    """SQL that adds an excluded amount to the one that is there, in an upsert."""
    below = f"{name}{PICO} + excluded.{name}{PICO}"
    return (
        f"{name}{USD} = {name}{USD} + excluded.{name}{USD} + ({below}) / {PICO_PER_USD}, "
        f"{name}{PICO} = ({below}) % {PICO_PER_USD}"
    )
