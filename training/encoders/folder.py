"""How an encoder is written to its folder: all of its files or none."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from serving.classifier.encoder import Encoder, EncoderIdentity
from serving.errors import EncoderError

FILES: Final = ("model.onnx", "tokenizer.json", "encoder.json")


def write_encoder(folder: Path, identity: EncoderIdentity, *, model: bytes, tokenizer: bytes) -> None:
    """Write model.onnx, tokenizer.json and encoder.json, unless they are there; over whatever else is there."""
    if holds(folder, identity):
        return
    contents = (model, tokenizer, identity.model_dump_json(indent=2).encode() + b"\n")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".encoder-") as scratch:
        draft = Path(scratch) / folder.name
        draft.mkdir()
        for name, content in zip(FILES, contents, strict=True):
            (draft / name).write_bytes(content)
        try:
            os.replace(draft, folder)
        except OSError:  # the folder is there: what another process has just built, or a broken one
            if not holds(folder, identity):
                shutil.rmtree(folder)
                os.replace(draft, folder)


def holds(folder: Path, identity: EncoderIdentity) -> bool:
    """Whether the encoder in `folder` is that one, and is whole."""
    try:
        Encoder.load(folder, expected=identity)
    except EncoderError:
        return False
    return True
