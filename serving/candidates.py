"""Which models may answer a call, and in which order are they asked?"""

import random
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from serving.attribution import Attribution
from serving.deciding import Asked, Decider
from serving.errors import UnknownModelError
from serving.routing.eligibility import eligible_tiers
from serving.routing.router import Decision
from serving.tiers import Tier
from serving.upstream.attempt import Upstream, Upstreams
from serving.upstream.weights import drawn

_TRIES: Final = 2  # of each model, before the next one is asked


class Candidate(NamedTuple):
    """A model that may answer, its tier if it is on the ladder, and who serves it."""

    model: str
    tier: str | None
    upstream: Upstream


class Candidates:
    """Finds them on the ladder of the router in service. Each is there as often as it is to be tried.

    weights: of a tier's models, by its name, where calls are shared among them; the others are asked in order.
    """

    def __init__(self, decider: Decider, upstreams: Upstreams, weights: Mapping[str, Sequence[float]]) -> None:
        self._decider = decider
        self._upstreams = upstreams
        self._weights = weights
        self._chance = random.Random()

    def named(self, model: str) -> list[Candidate]:
        """That model alone. Raises UnknownModelError when nobody serves it."""
        tiers = self._decider.router.tiers
        return self._served([(model, next((tier.name for tier in tiers if model in tier.models), None))])

    def decided(self, decision: Decision, asked: Asked) -> list[Candidate]:
        """Each model of the tier, then of the tiers above that can take the request.

        Raises UnknownModelError when nobody serves any.
        """
        tiers = self._decider.router.tiers
        if all(tier.name != decision.tier for tier in tiers):  # another ladder was promoted a moment ago
            raise UnknownModelError(f"tier {decision.tier!r} is no longer on the ladder; ask again", where="model")
        able = eligible_tiers(tiers, asked.conversation)
        chosen = [tier.name for tier in tiers].index(decision.tier)
        above = [tier for tier, can in zip(tiers[chosen + 1 :], able[chosen + 1 :], strict=True) if can]
        return self._served(
            [(model, tier.name) for tier in (tiers[chosen], *above) for model in self._in_order(tier, asked.who)]
        )

    def above(self, decision: Decision, asked: Asked, tier: str) -> list[Candidate]:
        """Who may answer of the next tier above that has anybody; none where none has."""
        place = {tier.name: place for place, tier in enumerate(self._decider.router.tiers)}
        if not {tier, decision.tier} <= place.keys():  # another ladder was promoted meanwhile
            return []
        others = [one for one in self.decided(decision, asked) if place[str(one.tier)] > place[tier]]
        return [one for one in others if one.tier == others[0].tier]

    def known(self) -> frozenset[str]:
        """Models of the ladder and of upstreams' lists: names that no client made up."""
        return frozenset(self._upstreams.models).union(*(tier.models for tier in self._decider.router.tiers))

    def _in_order(self, tier: Tier, who: Attribution) -> Sequence[str]:
        weights = self._weights.get(tier.name)
        return tier.models if weights is None else drawn(tier.models, weights, who, self._chance)

    def _served(self, named: Sequence[tuple[str, str | None]]) -> list[Candidate]:
        found = [Candidate(model, tier, one) for model, tier in named if (one := self._upstreams.of(model)) is not None]
        if not found:
            raise UnknownModelError(
                f"no upstream serves {named[0][0]!r}; GET /v1/models lists what there is", where="model"
            )
        return [candidate for candidate in found for _ in range(_TRIES)]
