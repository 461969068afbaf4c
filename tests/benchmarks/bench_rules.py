"""What do eligibility and the operator's rules cost a decision?"""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from serving.attribution import NOBODY, Attribution, Pin
from serving.chat import read_conversation
from serving.routing.eligibility import eligible_tiers
from serving.routing.rules import Rules
from serving.routing.sessions import Sessions
from serving.tiers import Tier
from tests.benchmarks.figures import Figure

NAMES: Final = ("economy", "standard", "premium")
TIERS: Final = tuple(Tier(name=name, models=("m",), context_window=128_000, vision=True) for name in NAMES)
SCORES: Final = (0.5, 0.7, 0.6)
ROUNDS: Final = 20_000
MAX_US: Final = 100.0  # a fifteenth of what `/route` may cost beyond the encoder pass


def measure(home: Path) -> Iterator[Figure]:
    """Medians of CPU time, the system's for the file among it. The file is this benchmark's own."""
    conversation = read_conversation(prompt="Which tier is enough for this? " * 8)
    sessions = Sessions(home / "sessions-benchmark.db", ttl_s=3600, most=100_000)
    every = Rules(pins=[Pin(team="legal", tier="premium")], max_top_share=0.2, exploration=0.05)
    timed = {
        "eligibility": lambda _: eligible_tiers(TIERS, conversation),
        "choice without rules": _choice(Rules(), lambda _: NOBODY),
        "choice with pins, cap and exploration": _choice(every, lambda _: Attribution(team="search")),
        "choice in a session that is new": _choice(Rules(sessions=sessions), lambda i: Attribution(session_id=str(i))),
        "choice in a session that is known": _choice(Rules(sessions=sessions), lambda _: Attribution(session_id="0")),
    }
    for name, run in timed.items():
        yield Figure("rules", name, statistics.median(_cpu_us(run, i) for i in range(ROUNDS)), "µs", bar=MAX_US)


def _choice(rules: Rules, who: Callable[[int], Attribution]) -> Callable[[int], object]:
    return lambda i: rules.choose(NAMES, SCORES, (True, True, True), who(i))


def _cpu_us(run: Callable[[int], object], i: int) -> float:
    started = time.process_time()
    run(i)
    return 1e6 * (time.process_time() - started)
