"""A sentence-transformers model as an encoder of ours: what of it can be exported, its graph, and the check of it.

Needs the extra `encoders`. The graph is that of torch's own exporter, for one unpadded text, so without a mask.
"""

import contextlib
import hashlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np

from serving.classifier.encoder import Encoder, EncoderIdentity
from serving.errors import EncoderError
from training.encoders.folder import FILES, write_encoder
from training.encoders.int8 import compact_graph
from training.encoders.parity import PARITY_TEXTS, Floats, Parity, Precision, check_parity, parity

INSTALL: Final = "pip install 'tierwise[training,encoders]'"
_MOST_TOKENS: Final = 512  # beyond, an embedding costs more than a decision may
_MOST_BYTES: Final = 1_900_000_000  # of weights in fp32; a model.onnx ends at 2 GiB
_OPSET: Final = 20  # the first with Gelu; onnxruntime 1.20 runs it

_Pooling = Literal["mean", "cls"]


@dataclass(frozen=True)
class Exported:
    """An encoder that was written, and how near it is to its model. setting: how `encoder` in [training] calls it."""

    identity: EncoderIdentity
    folder: Path
    setting: str
    precision: Precision
    parity: Parity


@dataclass(frozen=True)
class _Source:
    """What of a sentence-transformers model goes into an encoder."""

    model: Any  # SentenceTransformer
    pooling: _Pooling
    dense: list[Any]  # layers between the pooling and the embedding
    max_tokens: int
    prompt: str  # before every text


def export_encoder(
    name_or_folder: str, encoders: Path, *, out: Path | None, name: str | None, prompt: str | None, precision: Precision
) -> Exported:
    """Export a model to `out`, by default the folder of its digest under `encoders`.

    name: what to call it; default: the model's own. prompt: before every text; default: the model's own.
    Raises EncoderError when `out` holds anything but an encoder, without the extra, when the model cannot be loaded
    or holds what cannot be exported, and when the encoder does not embed as the model does; nothing is written then.
    """
    if out is not None and not _may_replace(out):
        raise EncoderError(
            f"{str(out)!r} is there and is no encoder's folder; give one that is new or holds an encoder"
        )
    with _quiet():
        source = _read(name_or_folder, prompt)
        tokenizer = _tokenizer(source)
        model, dimension = _graph(source, int8=precision == "int8")
        identity = EncoderIdentity(
            name=name or (Path(name_or_folder).name if Path(name_or_folder).exists() else name_or_folder),
            revision=getattr(source.model[0].auto_model.config, "_commit_hash", None) or "local",
            model_sha256=hashlib.sha256(model).hexdigest(),
            tokenizer_sha256=hashlib.sha256(tokenizer).hexdigest(),
            dimension=dimension,
            pooling=source.pooling,
            max_tokens=source.max_tokens,
        )
        with tempfile.TemporaryDirectory(prefix="tierwise-encoder-") as scratch:
            draft = Path(scratch) / identity.digest
            write_encoder(draft, identity, model=model, tokenizer=tokenizer)
            found = _compare(Encoder.load(draft), source)
    check_parity(found, precision)
    folder = out or encoders / identity.digest
    write_encoder(folder, identity, model=model, tokenizer=tokenizer)
    return Exported(identity, folder, identity.digest[:12] if out is None else str(folder.resolve()), precision, found)


def _may_replace(folder: Path) -> bool:
    """Whether nothing is lost that is not an encoder's."""
    if not folder.exists():
        return True
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= set(FILES)


def _read(name_or_folder: str, prompt: str | None) -> _Source:
    """Load the model, and refuse what is not understood. Raises EncoderError."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    except ImportError as error:
        raise EncoderError(f"exporting an encoder needs {error.name!r}; run: {INSTALL}") from error
    try:
        # the plain attention: others ask for a mask, or for operators that only a GPU has
        model = SentenceTransformer(name_or_folder, device="cpu", model_kwargs={"attn_implementation": "eager"})
    except Exception as error:  # the hub, transformers and safetensors raise classes without a common root
        reason = str(error).strip().split("\n")[0]
        raise EncoderError(
            f"sentence-transformers cannot load {name_or_folder!r}: {reason}; give the name of a model on the hub, or "
            "a folder that holds one"
        ) from error
    model.eval()
    modules = list(model)
    kinds = [type(module) for module in modules]
    if kinds[:2] != [Transformer, Pooling] or not set(kinds[2:]) <= {Dense, Normalize}:
        raise EncoderError(
            f"{name_or_folder!r} is made of {', '.join(kind.__name__ for kind in kinds)}; only a Transformer, then "
            "Pooling, then Dense layers and Normalize can be exported"
        )
    pooling = modules[1].pooling_mode
    if pooling not in ("mean", "cls"):
        raise EncoderError(f"{name_or_folder!r} pools tokens by {pooling!r}; only 'mean' and 'cls' can be exported")
    dense = [module for module in modules[2:] if isinstance(module, Dense)]
    if any((m.module_input_name, m.module_output_name) != ("sentence_embedding", "sentence_embedding") for m in dense):
        raise EncoderError(f"{name_or_folder!r} has a Dense layer that is not between pooling and embedding")
    if prompt is None:
        prompt = model.prompts.get(model.default_prompt_name, "") if model.default_prompt_name else ""
    if prompt and not modules[1].include_prompt:
        raise EncoderError(f"{name_or_folder!r} leaves its prompt out of the pooling, which cannot be exported")
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size > _MOST_BYTES:
        raise EncoderError(f"{name_or_folder!r} has {size / 1e9:.1f} GB of weights; at most {_MOST_BYTES / 1e9} GB fit")
    return _Source(
        model, cast(_Pooling, pooling), dense, min(model.max_seq_length or _MOST_TOKENS, _MOST_TOKENS), prompt
    )


def _tokenizer(source: _Source) -> bytes:
    """tokenizer.json: no padding, no truncation, the prompt before every text. Raises EncoderError."""
    from tokenizers import Tokenizer, normalizers

    backend = getattr(source.model.tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise EncoderError("the model's tokenizer is not one of the tokenizers library, so it cannot be exported")
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if source.prompt:
        first = normalizers.Prepend(source.prompt)
        tokenizer.normalizer = normalizers.Sequence([first, *filter(None, [tokenizer.normalizer])])
    ends = tokenizer.encode("").ids
    if len(ends) != 2:
        raise EncoderError(
            f"the model's tokenizer puts {len(ends)} tokens around a text; only those that put one before and one "
            "after it can be exported"
        )
    return tokenizer.to_str().encode()


def _graph(source: _Source, *, int8: bool) -> tuple[bytes, int]:
    """model.onnx and the embedding's dimension. Raises EncoderError when torch cannot export the model."""
    import torch

    one_text = _one_text(source)
    example = torch.tensor([source.model.tokenizer("how many tokens has this?")["input_ids"]])
    try:
        with torch.inference_mode():
            dimension = one_text(example).shape[0]
        program = torch.onnx.export(
            one_text,
            (example,),
            dynamo=True,
            dynamic_shapes=({1: torch.export.Dim("tokens", min=2, max=source.max_tokens)},),
            input_names=["input_ids"],
            output_names=["sentence_embedding"],  # "embedding" is what it calls the words' table
            opset_version=_OPSET,
            verbose=False,
        )
    except Exception as error:  # whatever the model's own code and the exporter's passes raise
        reason = str(error).strip().split("\n")[0]
        raise EncoderError(f"torch cannot export the model: {type(error).__name__}: {reason}") from error
    graph = compact_graph(program.model_proto, int8=int8)
    return graph.serialise("sentence_embedding", dimension, opset=_OPSET, output="sentence_embedding"), dimension


def _one_text(source: _Source) -> Any:
    """The model as a torch module: token ids (1, tokens) to an embedding (d,) of length 1."""
    import torch

    class OneText(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
        def __init__(self) -> None:
            super().__init__()
            self.transformer = source.model[0].auto_model
            self.dense = torch.nn.ModuleList(source.dense)

        def forward(self, input_ids: Any) -> Any:
            tokens = self.transformer(input_ids=input_ids).last_hidden_state
            pooled = _pooled(tokens, source.pooling)
            for layer in self.dense:
                pooled = layer({"sentence_embedding": pooled})["sentence_embedding"]
            return torch.nn.functional.normalize(pooled, dim=1).squeeze(0)

    return OneText().eval()


def _pooled(tokens: Any, pooling: _Pooling) -> Any:
    """A tensor (1, tokens, d) as (1, d)."""
    return tokens.mean(dim=1) if pooling == "mean" else tokens[:, 0]


def _compare(encoder: Encoder, source: _Source) -> Parity:
    """Our embeddings beside the model's own: of the texts, and of the longest text it sees.

    Raises EncoderError when a text is cut into other tokens than the model cuts it into, or cannot be embedded.
    """
    import torch

    one_text = _one_text(source)
    ours: list[Floats] = []
    theirs: list[Floats] = []
    for text in (*PARITY_TEXTS, " ".join(PARITY_TEXTS * 4)):
        ids, truncated = encoder.tokenize(text)
        if truncated:  # we see both ends of it and the model only its beginning: compared on the same tokens
            try:
                with torch.inference_mode():
                    theirs.append(one_text(torch.tensor([ids])).numpy())
            except IndexError as error:  # fewer positions than its max_seq_length says
                raise EncoderError(f"the model cannot take the {len(ids)} tokens that it says it takes") from error
        else:
            expected = source.model.tokenizer(source.prompt + text)["input_ids"]
            if ids != expected:
                raise EncoderError(f"the exported tokenizer cuts {text!r} into {ids}, the model's into {expected}")
            theirs.append(source.model.encode(text, prompt=source.prompt, show_progress_bar=False))
        ours.append(encoder.embed(text).vector)
    return parity(np.stack(ours), np.stack(theirs))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and progress bars of the libraries, which are about their own ways."""
    level = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            with contextlib.suppress(ImportError):
                from transformers.utils import logging as transformers_logging

                transformers_logging.disable_progress_bar()
            yield
        finally:
            logging.disable(level)
