"""What a classifier says of one conversation: features, embedding, heads, and what it does without an encoder."""

import hashlib
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.chat import Conversation, read_conversation
from serving.classifier.bundle import Bundle
from serving.classifier.encoder import Embedding, EmbeddingMemo
from serving.classifier.features import estimated_input_tokens, text_features
from serving.classifier.latest import Latest
from serving.errors import BundleError, EncoderError

_REMEMBERED: Final = 10_000  # predictions by features alone
GOLDEN_TOLERANCE: Final = 0.03
"""Largest accepted mean gap of golden probabilities between here and where the bundle was trained. Other processors
and onnxruntimes move it by .0005 to .006, a mistake by .15; a single one may jump with a tree by .2. Source:
docs/decisions/2026-11-24-encoder-graph.md."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One conversation: float64 (k,) per tier, cheapest first; `fallback`: the features alone were used.

    features: float32 (f,). embedding: float32 (d,), None where the features alone were used.
    """

    proba: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    input_tokens: float
    fallback: bool
    features: NDArray[np.float32]
    embedding: NDArray[np.float32] | None


class _Predicted(NamedTuple):
    proba: NDArray[np.float64]
    output_tokens: NDArray[np.float64]


class Classifier:
    """A bundle and the encoder it was trained with. Without the encoder it predicts from the features alone."""

    def __init__(self, bundle: Bundle, memo: EmbeddingMemo | None) -> None:
        """Raises BundleError when the encoder of `memo` is not the one the bundle was trained with."""
        if memo is not None and memo.encoder.identity != bundle.manifest.encoder:
            raise BundleError("the bundle was trained with another encoder than the one loaded; train it again")
        self.bundle = bundle
        self.memo = memo
        self._latest: Latest[_Predicted] = Latest(_REMEMBERED if memo is None else memo.capacity)

    def remembers(self, conversation: Conversation) -> bool:
        """Whether `predict` will be quick: it does not have to run the encoder."""
        return self.memo is None or self.memo.cached(conversation.last_user_text) is not None

    def predict(self, conversation: Conversation) -> Prediction:
        """P(acceptable) and expected tokens of each tier. An encoder that fails costs quality, not the answer."""
        embedding = self.embedding(conversation)
        features = text_features(conversation)
        predicted = self._predicted(None if embedding is None else embedding.vector, features)
        return Prediction(
            proba=predicted.proba,
            output_tokens=predicted.output_tokens,
            input_tokens=estimated_input_tokens(conversation),
            fallback=embedding is None,
            features=features,
            embedding=None if embedding is None else embedding.vector,
        )

    def _predicted(self, vector: NDArray[np.float32] | None, features: NDArray[np.float32]) -> _Predicted:
        """What the heads say: 1.4 ms of CPU, or what they said the last time, which follows from these alone."""
        seen = features.tobytes() if vector is None else vector.tobytes() + features.tobytes()
        key = hashlib.blake2b(seen, digest_size=16).digest()
        if (known := self._latest.get(key)) is not None:
            return known
        said = self.bundle.predict(None if vector is None else vector[None, :], features[None, :])
        predicted = _Predicted(np.asarray(said.proba[0], np.float64), np.asarray(said.output_tokens[0], np.float64))
        for array in predicted:
            array.flags.writeable = False  # it will be given out again
        self._latest.put(key, predicted)
        return predicted

    def check_golden(self) -> None:
        """Compare the golden prompts with what this machine computes. Raises BundleError beyond the tolerance."""
        golden = self.bundle.golden
        if not golden:
            return
        proba = np.stack([self.predict(read_conversation(prompt=row.prompt)).proba for row in golden])
        gap = float(np.abs(proba - np.array([row.proba for row in golden])).mean())
        if not gap <= self.bundle.manifest.golden_tolerance:
            raise BundleError(
                f"golden predictions are off by {gap:.3f} on average, more than "
                f"{self.bundle.manifest.golden_tolerance}: this machine computes other probabilities than the one "
                "that trained the bundle; train it here"
            )

    def embedding(self, conversation: Conversation) -> Embedding | None:
        """What the encoder makes of the last user turn; None without one, or when it fails."""
        if self.memo is None:
            return None
        try:
            return self.memo.embed(conversation.last_user_text)
        except EncoderError:
            return None
