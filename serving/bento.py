"""How the promoted router and the service become one bento, which serves where nothing of this folder is."""

import shutil
from pathlib import Path
from typing import Final

import bentoml

from serving.classifier.bundle import read_bundle
from serving.classifier.encoder import Encoder
from serving.errors import ConfigurationError
from serving.routing.promoted import pointed_to

BENTO_MODEL: Final = "tierwise-router"
_PROJECT: Final = Path(__file__).parent.parent


def save_model(home: Path) -> str:
    """Put the promoted bundle and its encoder into BentoML's model store; gives the model's tag.

    Raises BundleError when nothing is promoted or the bundle is damaged, EncoderError without its encoder.
    """
    pointer = pointed_to(home)
    encoder = read_bundle(home / "served" / pointer.folder).manifest.encoder
    if encoder is not None:
        Encoder.load(home / "encoders" / encoder.digest, expected=encoder)
    with bentoml.models.create(BENTO_MODEL, labels={"version": pointer.version}) as model:
        root = Path(model.path)
        shutil.copytree(home / "served" / pointer.folder, root / "served" / pointer.folder)
        (root / "served" / "current.json").write_text(pointer.model_dump_json(), "utf-8")
        if encoder is not None:
            shutil.copytree(home / "encoders" / encoder.digest, root / "encoders" / encoder.digest)
    return str(model.tag)


def build_bento(home: Path) -> str:
    """Save the model and build the bento of `bentofile.yaml`; gives its tag.

    Raises ConfigurationError outside a checkout, where there is no bentofile.
    """
    if not (_PROJECT / "bentofile.yaml").exists():
        raise ConfigurationError(f"no bentofile.yaml in {_PROJECT}; build from a checkout of Tierwise")
    save_model(home)
    return str(bentoml.bentos.build_bentofile(str(_PROJECT / "bentofile.yaml"), build_ctx=str(_PROJECT)).tag)
