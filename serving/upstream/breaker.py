"""Which models are left out for a while, since calls to them fail, and when may one call try again?"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from serving.errors import UpstreamError

Outcome = Literal["succeeded", "failed", "left"]
"""Of a call: the model answered to the end; it did not, whatever the request; or nobody knows whether it would have."""
_MOST: Final = 1_000  # models remembered: where an upstream serves all that no other lists, clients may name any


@dataclass(slots=True, eq=False)
class _Breaker:
    """Of one model. failures: in a row. wait_s: for how long it is left out; 0: it is not. until: when that is over.
    tried_until: while a call tries it, when another may. changes: how often it was left out and taken back: calls begun
    before tell nothing.
    """

    failures: int = 0
    wait_s: float = 0.0
    until: float = 0.0
    tried_until: float = 0.0
    changes: int = 0


class Breakers:
    """Of all models, in this process.

    failures: in a row, after which a model is left out. first_s: for how long; twice as long after each call that then
    tries it and fails, longest_s at most. clock: seconds.
    """

    def __init__(
        self, failures: int, first_s: float, longest_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures = failures
        self._first_s = first_s
        self._longest_s = longest_s
        self._clock = clock
        self._of: dict[str, _Breaker] = {}  # the model asked for last is the last

    def admit(self, model: str) -> "Trial | None":
        """Leave for one call, whose end must be told; None while the model is left out, or another call tries it."""
        breaker = self._of.pop(model) if model in self._of else _Breaker()
        self._of[model] = breaker
        if len(self._of) > _MOST:
            del self._of[next(iter(self._of))]
        if breaker.wait_s:
            if self._clock() < max(breaker.until, breaker.tried_until):
                return None
            breaker.tried_until = self._clock() + self._longest_s  # a stream that nobody reads never ends
        return Trial(self, breaker)

    def out(self) -> dict[str, float]:
        """The models left out, and seconds until a call may try each: 0 from when one may."""
        now = self._clock()
        return {model: max(0.0, one.until - now) for model, one in self._of.items() if one.wait_s}

    def first_back_s(self, models: Iterable[str]) -> float:
        """Seconds until one of these, which are all left out, may be tried."""
        out = self.out()
        return min((out[model] for model in models if model in out), default=0.0)

    def take(self, breaker: _Breaker, outcome: Outcome) -> None:
        """The outcome of a call that was begun since the breaker last changed."""
        breaker.tried_until = 0.0  # of a model that is left out, it was the call that tries
        if outcome == "succeeded":
            breaker.changes += breaker.wait_s > 0
            breaker.failures, breaker.wait_s = 0, 0.0
        elif outcome == "failed":
            breaker.failures += 1
            if breaker.wait_s or breaker.failures >= self._failures:
                breaker.wait_s = min(2 * breaker.wait_s or self._first_s, self._longest_s)
                breaker.until = self._clock() + breaker.wait_s
                breaker.changes += 1


class Trial:
    """Leave for one call."""

    __slots__ = ("_breaker", "_breakers", "_changes", "_over")

    def __init__(self, breakers: Breakers, breaker: _Breaker) -> None:
        self._breakers = breakers
        self._breaker = breaker
        self._changes = breaker.changes
        self._over = False

    def end(self, outcome: Outcome) -> None:
        """It is over. What is told first counts."""
        if not self._over and self._changes == self._breaker.changes:
            self._breakers.take(self._breaker, outcome)
        self._over = True


def is_outage(error: UpstreamError) -> bool:
    """Whether the model would fail on any request: not so where it refuses this one, or asks for fewer."""
    return error.status is None or error.status >= 500
