"""Which tier does a request get, once the operator's rules have had their say over the policy's scores?"""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal, NamedTuple

from serving.attribution import Attribution, Pin
from serving.routing.cap import SharedCap
from serving.routing.sessions import Kept, Sessions

Rule = Literal["pinned", "sticky", "switched", "exploration", "capped", "eligibility"]


class Cached(NamedTuple):
    """What is known of a request as a turn of a conversation.

    before, so_far: as in `Prefixes`, None where they are not wanted. worth: of each tier, what its score gains where
    its provider has what was sent before in its cache; None where a session keeps its tier whatever another gains.
    """

    before: str | None
    so_far: str | None
    worth: Sequence[float] | None


class Choice(NamedTuple):
    """A tier's place on the ladder, the probability with which it was chosen, and the rule that made the difference.

    rule: None where the policy has what it wanted.
    """

    tier: int
    propensity: float
    rule: Rule | None


NEW: Final = Cached(before=None, so_far=None, worth=None)
_PREFIX: Final = "prefix:"


class Rules:
    """The operator's rules with what they have to remember; outlives the routers of a process.

    In this order: an eligible pinned tier; the tier of the session, unless another gains more than the cache is worth;
    the policy's best, less what the cap takes from the top tier; exploration around it. Safe to use from several
    threads.
    """

    def __init__(
        self,
        *,
        pins: Sequence[Pin] = (),
        sessions: Sessions | None = None,
        by_prefix: bool = False,
        cached_price: Callable[[str], float] | None = None,
        max_top_share: float | None = None,
        top_burst: int = 20,
        exploration: float = 0.0,
        generator: random.Random | None = None,
    ) -> None:
        """exploration: in [0, 1). max_top_share: in [0, 1]. generator: for tests; of its own seed by default.

        by_prefix: whether a conversation that names no session is known by what was sent before. cached_price: of a
        model, what a token in its provider's cache costs, as a share of one that is not; None: sessions never switch.
        """
        self._pins = tuple(pins)
        self._sessions = sessions
        self.by_prefix = by_prefix
        self.cached_price = cached_price
        self._max_top_share = max_top_share
        self._cap = None if max_top_share is None else SharedCap(max_top_share, top_burst)
        self._exploration = exploration
        self._random = generator or random.Random()
        self._lock = threading.Lock()  # nobody else takes the last call to the top tier between the look and the count

    def choose(
        self,
        names: Sequence[str],
        scores: Sequence[float],
        eligible: Sequence[bool],
        who: Attribution,
        *,
        surcharge: float = 0.0,
        cached: Cached = NEW,
    ) -> Choice:
        """The choice among tiers `names`, cheapest first; at least one is eligible.

        scores: the policy's, the highest is best. surcharge: what the top tier loses of its score for the cap.
        """
        pinned = self._pinned(names, eligible, who)
        sessions = self._sessions if pinned is None else None
        before, after = self._in_session(who, cached.before), self._in_session(who, cached.so_far)
        kept = sessions.find(before) if sessions and before else None
        with self._lock:
            allowed = self._allowed(eligible, who)
            if pinned is not None:
                choice = Choice(pinned, 1.0, "pinned")
            elif kept is not None and kept.tier in names and allowed[names.index(kept.tier)]:
                held = Choice(names.index(kept.tier), kept.propensity, "sticky")
                choice = self._unless_another_gains_more(held, scores, eligible, allowed, surcharge, cached.worth)
            else:
                choice = self._by_policy(scores, eligible, allowed, surcharge)
            if self._cap is not None:
                self._cap.count((who.tenant, who.team), top=choice.tier == len(names) - 1)
        if sessions and after and not (choice.rule == "sticky" and before == after):
            sessions.keep(after, Kept(names[choice.tier], choice.propensity), instead_of=kept)
        return choice

    def greedy_top_share(self, tiers: int) -> float | None:
        """The share of choices before exploration that may be the top tier, so that all stay within the cap.

        None when there is no cap.
        """
        if self._max_top_share is None:
            return None
        left = self._max_top_share - self._exploration / tiers
        return min(max(left, 0.0) / (1 - self._exploration), 1.0)

    def _pinned(self, names: Sequence[str], eligible: Sequence[bool], who: Attribution) -> int | None:
        """The tier of the first pin that matches, if that tier can take the request."""
        tier = next((pin.tier for pin in self._pins if pin.matches(who)), None)
        return names.index(tier) if tier in names and eligible[names.index(tier)] else None

    def _in_session(self, who: Attribution, prefix: str | None) -> Attribution | None:
        """Who asks, in the session that it names, or in that of what was sent; None where it is in none."""
        if who.session_id is not None:
            return who
        return replace(who, session_id=f"{_PREFIX}{prefix}") if self.by_prefix and prefix is not None else None

    def _unless_another_gains_more(
        self,
        held: Choice,
        scores: Sequence[float],
        eligible: Sequence[bool],
        allowed: Sequence[bool],
        surcharge: float,
        worth: Sequence[float] | None,
    ) -> Choice:
        """The tier that is held, or the best with exploration around it, as for a first decision."""
        if worth is None:
            return held
        with_cache = [score + worth[tier] * (tier == held.tier) for tier, score in enumerate(scores)]
        if _best((*with_cache[:-1], with_cache[-1] - surcharge), allowed) == held.tier:
            return held
        choice = self._by_policy(with_cache, eligible, allowed, surcharge)
        return choice if choice.rule == "exploration" else choice._replace(rule="switched")

    def _allowed(self, eligible: Sequence[bool], who: Attribution) -> Sequence[bool]:
        """The eligible tiers, without the top one while the cap is reached for the team, unless no other is."""
        if self._cap is None or self._cap.open((who.tenant, who.team)) or not any(eligible[:-1]):
            return eligible
        return (*eligible[:-1], False)

    def _by_policy(
        self, scores: Sequence[float], eligible: Sequence[bool], allowed: Sequence[bool], surcharge: float
    ) -> Choice:
        wanted = _best(scores, [True] * len(scores))
        possible = _best(scores, eligible)
        greedy = _best((*scores[:-1], scores[-1] - surcharge), allowed)
        tier, propensity = greedy, 1.0
        if self._exploration:
            chances = propensities(greedy, allowed, self._exploration)
            tier = self._random.choices(range(len(chances)), chances)[0]
            propensity = chances[tier]
        rule: Rule | None = None
        if tier != greedy:
            rule = "exploration"
        elif greedy != possible:
            rule = "capped"
        elif possible != wanted:
            rule = "eligibility"
        return Choice(tier, propensity, rule)


def propensities(greedy: int, allowed: Sequence[bool], exploration: float) -> list[float]:
    """The probability of each tier, summing to one.

    The greedy one, or with probability `exploration` one drawn evenly from those allowed, itself among them.
    """
    chances = [able * exploration / sum(allowed) for able in allowed]
    chances[greedy] += 1 - exploration
    return chances


def _best(scores: Sequence[float], among: Sequence[bool]) -> int:
    """Ties go to the cheaper."""
    return max((tier for tier, able in enumerate(among) if able), key=scores.__getitem__)


NO_RULES: Final = Rules()
