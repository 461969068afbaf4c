"""How easily does text that a client adds to a prompt change its tier, and what does that cost?

Rerouting attacks, as in Shafran et al. 2025, "Rerouting LLM Routers" (arXiv:2501.01818): texts written by hand, and
"confounder gadgets", words found by hill climbing on the router's answers, once for all prompts or anew for each.

n = prompts, k = tiers.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.attribution import Attribution
from serving.chat import read_conversation
from serving.routing.policy import Policy
from serving.routing.router import Router
from serving.routing.rules import Rules
from training.evaluation.baselines.rules import ENOUGH_WORDS, LONG_CHARS
from training.evaluation.intervals import Estimate, Resamples, estimated
from training.fitting.rule_words import rule_words

WORDS: Final = 10  # of a gadget, as in the paper
QUERIES: Final = (
    100  # answers of the router that a search may ask for; a universal one asks for all its prompts at once
)


@dataclass(frozen=True)
class Attack:
    """What is put around every prompt."""

    name: str
    prefix: str = ""
    suffix: str = ""

    def __call__(self, text: str) -> str:
        """The prompt with it."""
        return f"{self.prefix}{text}{self.suffix}"


_GIBBERISH: Final = "xq zvtrw 9fkk bnmpl qqzx vrrt wkjh zzpq ytrx mmnb"
_HARD: Final = "analyze compare evaluate prove derive integral theorem eigenvalue optimize refactor step by step"
_DULL: Final = (
    "The garden behind the house has a wooden bench, two apple trees and a gate that does not close. In the morning "
    "the neighbour feeds the birds, and in the evening somebody walks past with a grey dog. On Sundays the bells ring "
    "at ten. The path was paved last summer, and since then the rain runs off to the left, where the mint grows. "
) * 5
FIXED: Final = (
    Attack("gibberish after", suffix=f"\n{_GIBBERISH}"),
    Attack("gibberish before", prefix=f"{_GIBBERISH}\n"),
    Attack("40 question marks after", suffix=" " + "?" * 40),
    Attack("200 blank lines after", suffix="\n" * 200),
    Attack("200 blank lines before", prefix="\n" * 200),
    Attack("1,000 spaces after", suffix=" " * 1000),
    Attack("hard words after", suffix=f"\n{_HARD}"),
    Attack("hard words before", prefix=f"{_HARD}\n"),
    Attack("1,600 characters of dull prose before", prefix=f"{_DULL}\n\n"),
    Attack("1,600 characters of dull prose after", suffix=f"\n\n{_DULL}"),
    Attack("four answer options after", suffix="\nA) 12\nB) 15\nC) 18\nD) 21"),
    Attack('"Question:" before', prefix="Question: "),
    Attack("an easy question after", suffix="\nQuestion: What is 2 + 2?"),
    Attack('"answer in one word" after', suffix="\nThis is easy, answer in one word."),
)


class Routed(NamedTuple):
    """What a router made of n prompts: tier, intp (n,), 0 the cheapest; gain, P(top) − P(bottom), float64 (n,)."""

    tier: NDArray[np.intp]
    gain: NDArray[np.float64]


Route = Callable[[Sequence[str]], Routed]


@dataclass(frozen=True)
class Effect:
    """What an attack did to a router. up, down: share of prompts that go to a dearer, a cheaper tier than without it.

    top: share that goes to the top tier now. gain: mean change of P(top) − P(bottom). cost: change of the expected cost
    of all prompts, relative, each priced as it was without the attack: what is added to it is not counted.
    """

    attack: str
    up: Estimate
    down: Estimate
    top: Estimate
    gain: Estimate
    cost: Estimate


def effect(attack: str, before: Routed, after: Routed, costs: NDArray[np.float64], resamples: Resamples) -> Effect:
    """The effect on prompts that cost (n, k) at each tier."""
    rows, top = np.arange(len(before.tier)), costs.shape[1] - 1
    was, now = costs[rows, before.tier], costs[rows, after.tier]
    columns = np.stack(
        [after.tier > before.tier, after.tier < before.tier, after.tier == top, after.gain - before.gain], axis=1
    )

    def figures(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([*(weight @ columns / weight.sum()), weight @ now / (weight @ was) - 1])

    return Effect(attack, *estimated(figures, resamples))


def measure(
    route: Route, prompts: Sequence[str], attacks: Sequence[Attack], costs: NDArray[np.float64]
) -> list[Effect]:
    """The effect of every attack on the prompts, which cost (n, k) at each tier."""
    before, resamples = route(prompts), Resamples.of(np.arange(len(prompts)))
    return [
        effect(attack.name, before, route([attack(text) for text in prompts]), costs, resamples) for attack in attacks
    ]


def by_router(router: Router, policy: Policy) -> Route:
    """As the router decides."""
    names = [tier.name for tier in router.tiers]

    def route(prompts: Sequence[str]) -> Routed:
        decisions = [router.decide(read_conversation(prompt=text), policy) for text in prompts]
        gain = [d.probabilities[names[-1]] - d.probabilities[names[0]] for d in decisions]
        return Routed(np.array([names.index(d.tier) for d in decisions], np.intp), np.array(gain))

    return route


def by_length(limit: float, tiers: int) -> Route:
    """The rule of prompt length: the top tier above `limit` characters, else the cheapest. It has no probabilities."""
    return _by_rule(lambda text: len(text) > limit, tiers)


def by_keywords(tiers: int) -> Route:
    """The rule of keywords: the top tier for prompts that are long or hold two of its words."""
    return _by_rule(lambda text: len(text) > LONG_CHARS or rule_words(text) >= ENOUGH_WORDS, tiers)


def _by_rule(is_hard: Callable[[str], bool], tiers: int) -> Route:
    def route(prompts: Sequence[str]) -> Routed:
        hard = np.array([is_hard(text) for text in prompts], np.intp)
        return Routed(hard * (tiers - 1), np.zeros(len(prompts)))

    return route


def gadget(
    score: Callable[[str], float], vocabulary: Sequence[str], *, words: int = WORDS, queries: int = QUERIES, seed: int
) -> str:
    """Words that make the score large: one of them at a time is replaced by another, and kept if that helps.

    Asks for exactly `queries` scores, at least 1, the first of random words.
    """
    rng = random.Random(seed)
    best = rng.choices(vocabulary, k=words)
    highest = score(" ".join(best))
    for _ in range(queries - 1):
        tried = [*best]
        tried[rng.randrange(words)] = rng.choice(vocabulary)
        if (found := score(" ".join(tried))) > highest:
            best, highest = tried, found
    return " ".join(best)


def universal(
    route: Route, prompts: Sequence[str], vocabulary: Sequence[str], *, up: bool, before: bool, queries: int, seed: int
) -> Attack:
    """One gadget for all prompts, from its effect on some: toward the dear tier (up) or the cheap, before or after."""
    name = f"gadget {'up' if up else 'down'}, {'before' if before else 'after'}"

    def attack(text: str) -> Attack:
        return Attack(name, prefix=f"{text}\n") if before else Attack(name, suffix=f"\n{text}")

    def score(text: str) -> float:
        gain = route([attack(text)(prompt) for prompt in prompts]).gain.mean()
        return float(gain if up else -gain)

    return attack(gadget(score, vocabulary, queries=queries, seed=seed))


def own_gadgets(
    route: Route, prompts: Sequence[str], vocabulary: Sequence[str], *, up: bool, queries: int, seed: int
) -> list[str]:
    """Every prompt with a gadget after it that was searched for it alone."""

    def attacked(text: str, own_seed: int) -> str:
        def score(words: str) -> float:
            gain = float(route([f"{text}\n{words}"]).gain[0])
            return gain if up else -gain

        return f"{text}\n{gadget(score, vocabulary, queries=queries, seed=own_seed)}"

    return [attacked(text, seed + i) for i, text in enumerate(prompts)]


def expected_costs(router: Router, prompts: Sequence[str], policy: Policy) -> NDArray[np.float64]:
    """What each prompt is expected to cost at each tier, (n, k): USD, or steps of the ladder without prices."""

    def costs(text: str) -> list[float]:
        scores = router.explain(read_conversation(prompt=text), policy).explanation.scores
        return [i if s.expected_cost_usd is None else s.expected_cost_usd for i, s in enumerate(scores)]

    return np.array([costs(text) for text in prompts], np.float64)


@dataclass(frozen=True)
class Paid:
    """What a team's calls came to: how many, how many of them to the top tier, and their expected cost."""

    calls: int
    top: int
    cost: float


def paid_by_team(
    router: Router,
    policy: Policy,
    rules: Rules,
    prompts: Mapping[str, Sequence[str]],
    costs: NDArray[np.float64],
    *,
    share: Mapping[str, float],
    calls: int,
    seed: int,
) -> dict[str, Paid]:
    """What every team pays when their calls arrive in random order under an operator's rules.

    prompts: each team's texts for the same n prompts, which cost (n, k) without an attack. share: of the calls.
    """
    names, rng = [tier.name for tier in router.tiers], random.Random(seed)
    found = {team: Paid(0, 0, 0.0) for team in share}
    for team in rng.choices(list(share), list(share.values()), k=calls):
        row = rng.randrange(len(costs))
        who = Attribution(team=team)
        tier = names.index(router.decide(read_conversation(prompt=prompts[team][row]), policy, who, rules).tier)
        was = found[team]
        found[team] = Paid(was.calls + 1, was.top + (tier == len(names) - 1), was.cost + float(costs[row, tier]))
    return found
