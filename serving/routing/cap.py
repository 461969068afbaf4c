"""May another call go to the top tier, when at most a share of them is to?"""


class TopCap:
    """A bucket that every decision fills by `share` and every call to the top tier empties by one.

    It starts full, with `burst`. Of any N decisions in a row at most share × N + burst then go to the top by choice.
    Those that had to go there count as well, and leave it in debt, to at most `burst`.
    """

    def __init__(self, share: float, burst: int) -> None:
        """share: in [0, 1]. burst: calls, at least 1; with a share of 0 there is none."""
        self._share = share
        self._burst = float(burst) if share > 0 else 0.0
        self._level = self._burst

    @property
    def open(self) -> bool:
        """Whether the next decision may choose the top tier."""
        return self._level + self._share >= 1

    def count(self, *, top: bool) -> None:
        """Take note of a decision."""
        filled = min(self._burst, self._level + self._share)
        self._level = max(-self._burst, filled - top)
