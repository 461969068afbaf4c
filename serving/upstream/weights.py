"""In which order are the models of a tier asked, where they share its calls by weight?"""

import hashlib
import json
import math
import random
from collections.abc import Sequence
from typing import Final

from serving.attribution import Attribution

_HASHES: Final = 2**64


def drawn(models: Sequence[str], weights: Sequence[float], who: Attribution, chance: random.Random) -> tuple[str, ...]:
    """The models in an order drawn by weight without replacement: each is the next with its share of what is left.

    A session always draws the same. When a model is added or taken away, no session changes between the others.
    Source: Efraimidis & Spirakis 2006, doi:10.1016/j.ipl.2005.11.003; -log(u) / weight stands for u ** (1 / weight).
    """

    def wait(pair: tuple[str, float]) -> float:
        model, weight = pair
        return -math.log(1 - chance.random() if who.session_id is None else _of_session(who, model)) / weight

    return tuple(model for model, _ in sorted(zip(models, weights, strict=True), key=wait))


def _of_session(who: Attribution, model: str) -> float:
    """Evenly in (0, 1]. A session belongs to its tenant and team: two may count theirs from 1."""
    key = json.dumps([who.tenant, who.team, who.session_id, model]).encode()
    return (int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) + 1) / _HASHES
