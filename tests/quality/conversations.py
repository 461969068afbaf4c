"""What does it save to keep a conversation's tier for its provider's cache, and to give it up where that is worth it?

python -m tests.quality.conversations

Made-up conversations through the rules as they are served: each turn routed anew, always the first turn's tier, and the
tier kept unless another gains more than the cache is worth. Only the prices are real. What the rules do not know counts
against them: answers are longer or shorter than expected, and a tier that a conversation left and comes back to still
has its earlier part.
"""

import math
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from serving.attribution import Attribution
from serving.routing.rules import Cached, Rules
from serving.routing.sessions import Sessions

NAMES: Final = ("nano", "mini", "full")
PRICES: Final = ((0.1, 0.4), (0.4, 1.6), (2.0, 8.0))
"""USD per million tokens in and out of gpt-4.1-nano, -mini and gpt-4.1; cached ones cost a fourth (genai-prices)."""
CACHED: Final = 0.25
LEAST_CACHED: Final = 1024
ABILITIES: Final = (0.5, 1.5, 2.5)
ANSWER_TOKENS: Final = 300
WAYS: Final = ("each turn anew", "always sticky", "switching")


class Scene(NamedTuple):
    """instructions: tokens before the first turn. cache: what the provider keeps: of each conversation what a tier has
    read of it; the instructions for every tier as well, since other conversations begin with them; or nothing, which
    the rules do not know. persistence: the part of difficulty that all turns of a conversation share. worth_usd: of
    an acceptable answer."""

    instructions: int
    cache: Literal["own", "shared", "none"]
    persistence: float
    worth_usd: float


class Turn(NamedTuple):
    """asked, answered: tokens. proba: P(acceptable) of each tier."""

    asked: int
    answered: int
    proba: tuple[float, ...]


class Result(NamedTuple):
    """For a thousand turns: USD, acceptable answers, changes of tier, and what is left of the answers' worth."""

    usd: float
    acceptable: float
    changes: float
    net_usd: float


def conversations(scene: Scene, n: int, seed: int = 0) -> Iterator[list[Turn]]:
    """The same for every way."""
    drawn = random.Random(seed)
    for _ in range(n):
        shared = drawn.gauss(0, 1)
        turns = []
        for _ in range(drawn.randint(1, 12)):
            hard = 1.5 * (scene.persistence**0.5 * shared + (1 - scene.persistence) ** 0.5 * drawn.gauss(0, 1))
            proba = tuple(1 / (1 + math.exp(hard - ability)) for ability in ABILITIES)
            asked, answered = (round(mean * drawn.lognormvariate(-0.18, 0.6)) for mean in (150, ANSWER_TOKENS))
            turns.append(Turn(asked, answered, proba))
        yield turns


def play(scene: Scene, way: str, n: int = 500, seed: int = 0) -> Result:
    """The conversations, paid as a provider would bill them."""
    usd = acceptable = 0.0
    changes = turns = 0
    with tempfile.TemporaryDirectory() as folder:
        sessions = Sessions(Path(folder) / "sessions.db", ttl_s=3600, most=100_000)
        rules = Rules(sessions=None if way == "each turn anew" else sessions)
        for number, conversation in enumerate(conversations(scene, n, seed)):
            known = [scene.instructions if scene.cache == "shared" else 0] * len(NAMES)  # tokens, of each tier
            read, before = scene.instructions, None
            for i, turn in enumerate(conversation):
                sent = read + turn.asked
                tier = _tier(scene, rules, way, str(number), turn, sent, read if i else 0)
                usd += _billed(tier, sent, known[tier], turn.answered)
                acceptable += turn.proba[tier]
                changes += before not in (None, tier)
                known[tier], before = 0 if scene.cache == "none" else sent, tier
                read = sent + turn.answered
            turns += len(conversation)
    net = scene.worth_usd * acceptable - usd
    return Result(*(1000 * total / turns for total in (usd, acceptable, changes, net)))


def _tier(scene: Scene, rules: Rules, way: str, session: str, turn: Turn, sent: int, read: int) -> int:
    mu = 1 / scene.worth_usd
    costs = [(sent * price_in + ANSWER_TOKENS * price_out) / 1e6 for price_in, price_out in PRICES]
    scores = [chance - mu * cost for chance, cost in zip(turn.proba, costs, strict=True)]
    prefix = read if read >= LEAST_CACHED else 0
    worth = [mu * prefix * price_in * (1 - CACHED) / 1e6 for price_in, _ in PRICES] if way == "switching" else None
    who = Attribution(session_id=session)
    return rules.choose(NAMES, scores, (True,) * 3, who, cached=Cached(None, None, worth)).tier


def _billed(tier: int, sent: int, known: int, answered: int) -> float:
    price_in, price_out = PRICES[tier]
    cached = known if known >= LEAST_CACHED else 0
    return ((sent - cached * (1 - CACHED)) * price_in + answered * price_out) / 1e6


_CACHES: Final[tuple[tuple[int, Literal["own", "shared", "none"]], ...]] = (
    (300, "own"), (4000, "own"), (4000, "shared"), (4000, "none"), (20_000, "own"),
)  # fmt: skip
SCENES: Final = tuple(
    Scene(instructions, cache, persistence, worth_usd)
    for instructions, cache in _CACHES
    for persistence in (0.3, 0.9)
    for worth_usd in (0.01, 0.1)
)


def main() -> None:
    """Print the table."""
    print("| instructions | cache | persistence | an answer is worth | " + " | ".join(WAYS) + " |")
    print("|---|---|---|---|" + "---|" * len(WAYS))
    for scene in SCENES:
        results = [play(scene, way) for way in WAYS]
        cells = [f"{one.usd:.2f} / {one.acceptable:.0f} / {one.changes:.0f} / {one.net_usd:.2f}" for one in results]
        told = (f"{scene.instructions:,}", scene.cache, scene.persistence, f"{scene.worth_usd} USD", *cells)
        print(f"| {' | '.join(map(str, told))} |")


if __name__ == "__main__":
    main()
