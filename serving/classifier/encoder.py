"""How a text becomes an embedding: cut, tokenise, one run of the ONNX graph; and a memory of the last ones."""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException
from pydantic import BaseModel, ConfigDict, ValidationError
from tokenizers import Tokenizer

from serving.classifier.latest import Latest
from serving.errors import EncoderError

# Characters kept at each end of a long text for every token wanted of it, so that a megabyte is not tokenised
# for 254 tokens. In 4,289 public prompts longer than that, 127 tokens took 580 characters at the median and
# 1,082 at most, of 1,524 kept (docs/decisions/2026-11-24-encoder-graph.md).
CHARS_PER_TOKEN: Final = 12


class EncoderIdentity(BaseModel):
    """Which encoder made an embedding. Two embeddings compare only if their encoders' digests are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    revision: str
    model_sha256: str
    tokenizer_sha256: str
    dimension: int
    pooling: str
    max_tokens: int

    @property
    def digest(self) -> str:
        """sha256 over the canonical JSON, in hex; also the name of the encoder's folder."""
        return _digest_of(self)


@lru_cache(maxsize=64)
def _digest_of(identity: EncoderIdentity) -> str:
    """Asked for with every decision. Remembered by what it is of: a copy with a change is another."""
    canonical = json.dumps(identity.model_dump(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Embedding:
    """What the encoder makes of one text."""

    vector: NDArray[np.float32]  # (d,), of length 1, read-only
    truncated: bool  # the text was longer than the encoder sees: its middle is not in the vector


class Encoder:
    """A tokenizer and a sentence encoder, one text a run. Safe to share between threads.

    One text a run because the graph quantises its activations over everything it is given: the same text
    beside other texts would get another vector.
    """

    def __init__(self, identity: EncoderIdentity, tokenizer: Tokenizer, session: onnxruntime.InferenceSession) -> None:
        self.identity = identity
        self._tokenizer = tokenizer
        self._session = session
        self._start, self._end = tokenizer.encode("").ids
        self._tail_tokens = (identity.max_tokens - 2) // 2
        self._head_tokens = identity.max_tokens - 2 - self._tail_tokens

    @classmethod
    def load(cls, folder: Path, *, expected: EncoderIdentity | None = None) -> "Encoder":
        """The encoder in `folder`: encoder.json, tokenizer.json and model.onnx.

        Raises EncoderError if a file is missing or is not the one encoder.json (or `expected`) promises.
        """
        try:
            identity = EncoderIdentity.model_validate_json((folder / "encoder.json").read_bytes())
            tokenizer = (folder / "tokenizer.json").read_bytes()
            model = (folder / "model.onnx").read_bytes()
        except (OSError, ValidationError) as error:
            raise EncoderError(
                f"no usable encoder in {str(folder)!r} ({error}); `tierwise train` builds the default one, "
                "`tierwise encoder export` another"
            ) from error
        if expected is not None and identity != expected:
            raise EncoderError(
                f"the encoder in {str(folder)!r} is {identity.name!r} {identity.digest}, where "
                f"{expected.name!r} {expected.digest} was promised; point to the folder of that digest, or "
                "retrain with this encoder"
            )
        _check("tokenizer.json", tokenizer, identity.tokenizer_sha256, folder)
        _check("model.onnx", model, identity.model_sha256, folder)
        try:
            return cls(identity, Tokenizer.from_buffer(tokenizer), _session(model))
        except Exception as error:  # onnxruntime and tokenizers raise classes without a common root
            raise EncoderError(f"the encoder in {str(folder)!r} cannot be loaded: {error}") from error

    def embed(self, text: str) -> Embedding:
        """The embedding of `text`. Of a text beyond max_tokens, that of its first and last tokens.

        Raises EncoderError when onnxruntime cannot run it, which is a lack of memory or a defect.
        """
        ids, truncated = self.tokenize(text)
        try:
            (vector,) = self._session.run(None, {"input_ids": np.array([ids], dtype=np.int64)})
        except (Fail, RuntimeException) as error:
            raise EncoderError(f"onnxruntime could not run the encoder: {error}") from error
        vector.setflags(write=False)
        return Embedding(vector, truncated)

    def tokenize(self, text: str) -> tuple[list[int], bool]:
        """The token ids the model sees, at most max_tokens, and whether any of the text is missing."""
        head_chars = CHARS_PER_TOKEN * self._head_tokens
        tail_chars = CHARS_PER_TOKEN * self._tail_tokens
        truncated = len(text) > head_chars + tail_chars
        if truncated:
            head = self._ids(text[:head_chars])
            tail = self._ids(text[-tail_chars:])
        else:
            head = tail = self._ids(text)
            truncated = len(head) > self._head_tokens + self._tail_tokens
        middle = head[: self._head_tokens] + tail[-self._tail_tokens :] if truncated else head
        return [self._start, *middle, self._end], truncated

    def _ids(self, text: str) -> list[int]:
        # JSON can carry half a surrogate pair, which is no text to the tokenizer: it becomes "?".
        whole = text.encode("utf-8", "replace").decode()
        return self._tokenizer.encode(whole, add_special_tokens=False).ids


class EmbeddingMemo:
    """The latest embeddings by hash of their text, so that cache and router embed a text once.

    Holds at most `capacity` vectors, forgetting the least recently used, and never a text. Safe to share
    between threads; two that miss the same text at once both compute it.
    """

    def __init__(self, encoder: Encoder, capacity: int) -> None:
        self.encoder = encoder
        self._latest: Latest[Embedding] = Latest(capacity)

    def __len__(self) -> int:
        return len(self._latest)

    @property
    def capacity(self) -> int:
        """The most it holds."""
        return self._latest.capacity

    def cached(self, text: str) -> Embedding | None:
        """The embedding of `text` if it is at hand; never runs the encoder."""
        return self._latest.get(_key(text))

    def embed(self, text: str) -> Embedding:
        """The embedding of `text`, computed if it is not at hand."""
        key = _key(text)
        if (known := self._latest.get(key)) is not None:
            return known
        embedding = self.encoder.embed(text)
        self._latest.put(key, embedding)
        return embedding


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _check(name: str, content: bytes, promised: str, folder: Path) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != promised:
        raise EncoderError(
            f"{name} in {str(folder)!r} has sha256 {found}, not {promised}; delete the folder, and "
            "`tierwise train` builds the default encoder again, `tierwise encoder export` another"
        )


def _session(model: bytes) -> onnxruntime.InferenceSession:
    """One thread a run, without spinning; the graph as it was hashed, without onnxruntime's rewriting of it."""
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
