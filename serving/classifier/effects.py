"""Which features moved a prediction: each in turn is put at what is typical of the training prompts."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.chat import Conversation
from serving.classifier.classifier import Classifier
from serving.classifier.features import FEATURE_NAMES, text_features

MEANING: Final = "embedding"
"""What the embedding as a whole is called among the features."""


@dataclass(frozen=True)
class Effects:
    """m features, k tiers.

    value, typical: (m,), NaN for the embedding. change: (m, k), by how much P(acceptable) is higher than if that
    feature alone had its typical value.
    """

    names: tuple[str, ...]
    value: NDArray[np.float64]
    typical: NDArray[np.float64]
    change: NDArray[np.float64]


def effects(classifier: Classifier, conversation: Conversation) -> Effects | None:
    """The effect of every feature, and of the embedding; None for a bundle that remembers no training prompts.

    One feature at a time: what several do together is in none of their effects. Typical is the median of the
    prompts the heads were fitted on, and for the embedding their mean.
    """
    bundle = classifier.bundle
    if bundle.trained_on is None or len(bundle.trained_on) == 0:
        return None
    features = text_features(conversation)
    typical = bundle.trained_on.typical_features
    changed = np.tile(features, (len(features) + 1, 1))
    np.fill_diagonal(changed[1:], typical)
    embedding = classifier.embedding(conversation)
    names, value, common = FEATURE_NAMES, features, typical
    embeddings = None
    if embedding is not None and bundle.heads is not None and bundle.heads.projection is not None:
        embeddings = np.tile(embedding.vector, (len(changed) + 1, 1))
        embeddings[-1] = bundle.heads.projection.mean
        changed = np.vstack([changed, features])
        names = (*names, MEANING)
        value, common = (np.append(array, np.float32(np.nan)) for array in (value, common))
    proba = bundle.predict(embeddings, changed).proba
    return Effects(names, np.asarray(value, np.float64), np.asarray(common, np.float64), proba[0] - proba[1:])
