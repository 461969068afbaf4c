"""What goes wrong at the stand-in, when, and how often."""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Fault = Literal[
    "rate_limited", "overloaded", "server_error", "bad_request", "echo_key", "html", "not_json", "hang", "reset",
    "reset_midway", "silent_end", "malformed_event",
]  # fmt: skip
"""rate_limited: 429 with Retry-After; overloaded: 503; server_error: 500; bad_request: 400; echo_key: 401 with the key
in its text; html: a page with status 200; not_json: half a whole answer with status 200; hang: no answer until the
client goes; reset: the connection is closed before a byte; reset_midway: in the middle of the answer; silent_end: a
stream that ends early and properly; malformed_event: an event in mid-stream that is no JSON. not_json leaves streams
alone, and the last two leave whole answers.
"""
FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)


@dataclass
class Plan:
    """Faults that are ordered one by one, by model, and a share of faults drawn at random."""

    share: float = 0.0
    drawn_from: tuple[Fault, ...] = ("rate_limited", "overloaded", "server_error", "reset", "reset_midway", "html")
    seed: int = 0
    _ordered: dict[str, deque[Fault]] = field(default_factory=dict)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def order(self, model: str, *faults: Fault) -> None:
        """The next requests for that model go wrong like this, in this order."""
        self._ordered.setdefault(model, deque()).extend(faults)

    def clear(self) -> None:
        """Nothing that was ordered happens any more."""
        self._ordered.clear()

    def next(self, model: str) -> Fault | None:
        """What goes wrong with this request."""
        if waiting := self._ordered.get(model):
            return waiting.popleft()
        return self._random.choice(self.drawn_from) if self._random.random() < self.share else None
