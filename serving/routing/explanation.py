"""Why a decision is what it is: every tier's score, the features that moved it, and the nearest training prompts."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from serving.chat import Conversation
from serving.classifier.classifier import Classifier
from serving.classifier.effects import effects
from serving.classifier.proba import FloatArray
from serving.tiers import Tier

_MOST_FEATURES: Final = 8
_NEIGHBOURS: Final = 5
_LEAST_CHANGE: Final = 0.001


class _Shown(BaseModel):
    model_config = ConfigDict(frozen=True)


class TierScore(_Shown):
    """One tier: P(acceptable), what it would cost (null when a price is unknown), and what the rule compares.

    score: probability - μ × cost, where the policy `share` counts a cost of 1 for the top tier and 0 for others; less
    what a cap on the top tier's share takes from it. eligible: whether it can take the request at all.
    """

    tier: str
    model: str
    probability: float
    expected_cost_usd: float | None
    score: float
    eligible: bool


class FeatureEffect(_Shown):
    """A feature of the request and what it changed.

    value: here; typical: in the training prompts; both null for the embedding. probabilities: by tier, how much more
    P(acceptable) is than with the typical value.
    """

    feature: str
    value: float | None
    typical: float | None
    probabilities: dict[str, float]


class Neighbour(_Shown):
    """A training prompt by its id in the log. similarity: cosine. acceptable: by tier, null where it was not tried."""

    id: str
    similarity: float
    acceptable: dict[str, float | None]


class Explanation(_Shown):
    """Why a decision is what it is.

    threshold: μ. scores: cheapest tier first. features: the largest effects first; empty for a router that remembers
    no training prompts. nearest: the most similar training prompts; empty too without an encoder.
    """

    threshold: float
    scores: tuple[TierScore, ...]
    features: tuple[FeatureEffect, ...]
    nearest: tuple[Neighbour, ...]


def tier_scores(
    tiers: Sequence[Tier],
    proba: FloatArray,
    costs: Sequence[float | None],
    scores: FloatArray,
    eligible: Sequence[bool],
) -> tuple[TierScore, ...]:
    """Side by side, for each of `tiers`."""
    rows = zip(tiers, proba, costs, scores, eligible, strict=True)
    return tuple(
        TierScore(
            tier=tier.name,
            model=tier.models[0],
            probability=round(float(p), 6),
            expected_cost_usd=cost,
            score=float(score),
            eligible=able,
        )
        for tier, p, cost, score, able in rows
    )


def feature_effects(
    classifier: Classifier, conversation: Conversation, names: Sequence[str], columns: NDArray[np.intp]
) -> tuple[FeatureEffect, ...]:
    """The features that moved some probability by a thousandth or more, the largest first.

    names: of the tiers; columns: int (k,), the classifier's tiers that answer for them.
    """
    found = effects(classifier, conversation)
    if found is None:
        return ()
    change = found.change[:, columns]
    size = np.abs(change).max(axis=1)
    order = [i for i in np.argsort(-size, kind="stable")[:_MOST_FEATURES] if size[i] >= _LEAST_CHANGE]
    return tuple(
        FeatureEffect(
            feature=found.names[i],
            value=_known(found.value[i]),
            typical=_known(found.typical[i]),
            probabilities={name: round(float(p), 6) for name, p in zip(names, change[i], strict=True)},
        )
        for i in order
    )


def nearest_prompts(
    classifier: Classifier, conversation: Conversation, names: Sequence[str], columns: NDArray[np.intp]
) -> tuple[Neighbour, ...]:
    """The training prompts with the most similar embeddings; names and columns as in `feature_effects`."""
    trained_on, embedding = classifier.bundle.trained_on, classifier.embedding(conversation)
    if trained_on is None or embedding is None:
        return ()
    rows, similarity = trained_on.nearest(embedding.vector, _NEIGHBOURS)
    outcomes = trained_on.acceptable[:, columns]
    return tuple(
        Neighbour(
            id=trained_on.ids[row],
            similarity=round(float(cosine), 4),
            acceptable={name: _known(outcome) for name, outcome in zip(names, outcomes[row], strict=True)},
        )
        for row, cosine in zip(rows, similarity, strict=True)
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
