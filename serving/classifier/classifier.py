"""What a classifier says of one conversation: features, embedding, heads, and what it does without an encoder."""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.chat import Conversation, read_conversation
from serving.classifier.bundle import Bundle
from serving.classifier.encoder import Embedding, EmbeddingMemo
from serving.classifier.features import estimated_input_tokens, text_features
from serving.classifier.latest import Latest
from serving.classifier.quantised import quantised
from serving.errors import BundleError, EncoderError

_REMEMBERED: Final = 10_000  # predictions, where there is no encoder to say how many
GOLDEN_TOLERANCE: Final = 0.03
"""Largest accepted mean gap of golden probabilities between here and where the bundle was trained. Other processors
and onnxruntimes move it by .0005 to .006, a mistake by .15; a single one may jump with a tree by .2. Source:
docs/decisions/2026-11-24-encoder-graph.md."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One conversation: float64 (k,) per tier, cheapest first; `fallback`: the features alone were used.

    features: float32 (f,). embedding: int8 (d,) as bytes with its scale, None where the features alone were used.
    Arrays are read-only.
    """

    proba: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    input_tokens: float
    fallback: bool
    features: NDArray[np.float32]
    embedding: tuple[bytes, float] | None


class Classifier:
    """A bundle and the encoder it was trained with. Without the encoder it predicts from the features alone."""

    def __init__(self, bundle: Bundle, memo: EmbeddingMemo | None) -> None:
        """Raises BundleError when the encoder of `memo` is not the one the bundle was trained with."""
        if memo is not None and memo.encoder.identity != bundle.manifest.encoder:
            raise BundleError("the bundle was trained with another encoder than the one loaded; train it again")
        self.bundle = bundle
        self.memo = memo
        self._latest: Latest[Prediction] = Latest(_REMEMBERED if memo is None else memo.capacity)

    def remembers(self, conversation: Conversation) -> bool:
        """Whether `predict` will be quick: it does not have to run the encoder."""
        if self.memo is None or self._latest.get(_key(conversation)) is not None:
            return True
        return self.memo.cached(conversation.last_user_text) is not None

    def predict(self, conversation: Conversation) -> Prediction:
        """P(acceptable) and expected tokens of each tier. An encoder that fails costs quality, not the answer."""
        key = _key(conversation)
        if (known := self._latest.get(key)) is not None:
            return known
        embedding = self.embedding(conversation)
        vector = None if embedding is None else embedding.vector
        features = text_features(conversation)
        said = self.bundle.predict(None if vector is None else vector[None, :], features[None, :])
        proba, output_tokens = (np.asarray(of[0], np.float64) for of in (said.proba, said.output_tokens))
        for array in (proba, output_tokens, features):
            array.flags.writeable = False  # it will be given out again
        prediction = Prediction(
            proba=proba,
            output_tokens=output_tokens,
            input_tokens=estimated_input_tokens(conversation),
            fallback=vector is None,
            features=features,
            embedding=None if vector is None else _as_int8(vector),
        )
        if vector is not None or self.memo is None:  # an encoder that failed is asked again
            self._latest.put(key, prediction)
        return prediction

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


def _as_int8(vector: NDArray[np.float32]) -> tuple[bytes, float]:
    """388 bytes for 384 numbers: as the request log keeps it."""
    codes, scale = quantised(vector[None, :])
    return codes[0].tobytes(), float(scale[0])


def _key(conversation: Conversation) -> bytes:
    """Of all that a prediction follows from; the text is not kept. No UTF-8 has the byte before the counts."""
    counts = (
        conversation.total_chars, conversation.system_chars, conversation.messages, conversation.user_turns,
        conversation.tools, conversation.images, conversation.wants_json,
    )  # fmt: skip
    said = b"%b\xff%d %d %d %d %d %d %d" % (conversation.last_user_text.encode("utf-8", "surrogatepass"), *counts)
    return hashlib.blake2b(said, digest_size=16).digest()
