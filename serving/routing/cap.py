"""May another call go to the top tier, when at most a share of them is to? And whose, when there are many?"""

from collections import OrderedDict
from typing import Final

_TEAMS: Final = 1000  # remembered, the latest to call: clients choose names, and may invent them


Team = tuple[str, str | None]
"""A tenant and a team of it; None for calls that name none."""


class TopCap:
    """A bucket that every decision fills by `share` and every call to the top tier empties by one.

    It starts full, with `burst`. Of any N decisions in a row at most share × N + burst then go to the top by choice.
    Those that had to go there count as well, and leave it in debt, to at most `burst`.
    """

    def __init__(self, share: float, burst: int, *, empty: bool = False) -> None:
        """share: in [0, 1]. burst: calls, at least 1; with a share of 0 there is none. empty: to begin with."""
        self._share = share
        self._burst = float(burst) if share > 0 else 0.0
        self._level = 0.0 if empty else self._burst

    @property
    def open(self) -> bool:
        """Whether the next decision may choose the top tier."""
        return self._level + self._share >= 1

    @property
    def low(self) -> bool:
        """Whether it is less than half full, or holds less than one call."""
        return self._level < max(self._burst / 2, 1)

    def count(self, *, top: bool) -> None:
        """Take note of a decision."""
        filled = min(self._burst, self._level + self._share)
        self._level = max(-self._burst, filled - top)


class SharedCap:
    """A `TopCap` that teams draw from, so that none takes what others need.

    While it is at least half full, any team may. Below that, only those within the share of their own calls, by a
    bucket that starts empty: a name that nobody has used before is worth nothing. With one team, there is nobody to
    share with. Calls without a team are those of one more.
    """

    def __init__(self, share: float, burst: int) -> None:
        """As a `TopCap`."""
        self._share, self._burst = share, burst
        self._all = TopCap(share, burst)
        self._own: OrderedDict[Team, TopCap] = OrderedDict()

    def open(self, team: Team) -> bool:
        """Whether the team's next decision may choose the top tier."""
        own = self._own.get(team)
        alone = len(self._own) == (own is not None)
        if self._all.low and not alone:
            return self._all.open and own is not None and own.open
        return self._all.open

    def count(self, team: Team, *, top: bool) -> None:
        """Take note of a decision of the team."""
        own = self._own.setdefault(team, TopCap(self._share, self._burst, empty=True))
        self._own.move_to_end(team)
        if len(self._own) > _TEAMS:
            self._own.popitem(last=False)
        self._all.count(top=top)
        own.count(top=top)
