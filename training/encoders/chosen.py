"""Which encoder a run uses: one that Tierwise builds, or one that was exported, under TIERWISE_HOME or in a folder."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from serving.classifier.encoder import Encoder, EncoderIdentity
from serving.errors import ConfigurationError, EncoderError
from training.encoders.default import DEFAULT_ENCODER, build_default_encoder
from training.encoders.folder import write_encoder
from training.encoders.multilingual import MULTILINGUAL_ENCODER, build_multilingual_encoder

_BUILT: Final[Mapping[str, EncoderIdentity]] = {"default": DEFAULT_ENCODER, "multilingual": MULTILINGUAL_ENCODER}
_BUILDERS: Final[Mapping[EncoderIdentity, Callable[[Path], EncoderIdentity]]] = {
    DEFAULT_ENCODER: build_default_encoder,
    MULTILINGUAL_ENCODER: build_multilingual_encoder,
}
_SHORTEST_DIGEST: Final = 8  # characters that tell one encoder from another


def encoder_for(home: Path, identity: EncoderIdentity) -> Encoder:
    """The encoder of that identity under `home`; those that Tierwise builds are built there on first use.

    Raises EncoderError when another one is not there, or is not what it says.
    """
    return Encoder.load(put_in_place(home, identity), expected=identity)


def put_in_place(home: Path, identity: EncoderIdentity) -> Path:
    """The folder of that encoder under `home`, where the service looks for it; built there if Tierwise builds it.

    Raises EncoderError when another one is not there.
    """
    folder = encoder_folder(home, identity)
    if build := _BUILDERS.get(identity):
        build(folder)
    elif not (folder / "encoder.json").exists():
        raise EncoderError(
            f"the encoder {identity.name!r} {identity.digest[:12]} is not in {str(folder)!r}; copy that folder from "
            "where it was exported, or export it again: tierwise encoder export MODEL"
        )
    return folder


def encoder_folder(home: Path, identity: EncoderIdentity) -> Path:
    """Where the encoder of that identity belongs under `home`."""
    return home / "encoders" / identity.digest


def chosen_encoder(home: Path, setting: str) -> Encoder:
    """The encoder of a setting: `default`, `multilingual`, a name or digest (8 characters do) under `home`, a folder.

    From a folder elsewhere it is copied to `home`. Raises ConfigurationError when the setting means none or
    several, EncoderError when the encoder is not what it says.
    """
    if setting in _BUILT:
        return encoder_for(home, _BUILT[setting])
    known = {identity.digest: identity for identity in _known(home)}
    meant = [i for i in known.values() if i.name == setting or _abbreviates(setting, i.digest)]
    if len(meant) == 1:
        return encoder_for(home, meant[0])
    if meant:
        raise ConfigurationError(
            f"encoder: {len(meant)} encoders are called {setting!r}; say which by its digest: "
            + ", ".join(sorted(identity.digest[:12] for identity in meant))
        )
    folder = Path(setting).expanduser()
    if not (folder / "encoder.json").exists():
        names = sorted(f"{identity.name!r} ({identity.digest[:12]})" for identity in known.values())
        raise ConfigurationError(
            f"encoder: there is no encoder {setting!r}, and no folder of that name holds one; there are: "
            f"{', '.join([*_BUILT, *names])}; make another with: tierwise encoder export MODEL"
        )
    encoder = Encoder.load(folder)
    model, tokenizer = ((folder / name).read_bytes() for name in ("model.onnx", "tokenizer.json"))
    write_encoder(encoder_folder(home, encoder.identity), encoder.identity, model=model, tokenizer=tokenizer)
    return encoder


def _known(home: Path) -> Iterator[EncoderIdentity]:
    """The encoders under `home`, without those that cannot be read."""
    for file in sorted((home / "encoders").glob("*/encoder.json")):
        try:
            yield EncoderIdentity.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            continue


def _abbreviates(text: str, digest: str) -> bool:
    return len(text) >= _SHORTEST_DIGEST and digest.startswith(text)
