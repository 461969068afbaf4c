"""What every test shares: an encoder built once, state in a temporary folder, and no way out but loopback."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from serving.classifier.bundle import Bundle
from tests.factories import made_up_log, trained_bundle
from tests.loopback import stay_on_loopback
from training.encoders import DEFAULT_ENCODER, build_default_encoder

if TYPE_CHECKING:
    from openai import OpenAI

    from tests.stand_in.server import StandIn

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before anything imports mlflow
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")  # speed is for benchmarks; a slow draw is no fault of the code under test
os.environ.setdefault("OMP_NUM_THREADS", "1")  # made-up data is small: threads that wait for each other cost more


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default encoder, built from the installed weights."""
    folder = tmp_path_factory.mktemp("encoders") / DEFAULT_ENCODER.digest
    build_default_encoder(folder)
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle trained on made-up examples with the fake encoder."""
    return trained_bundle(tmp_path_factory.mktemp("bundles") / "one")


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, to copy: a fresh one costs seconds of migrations."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def state(tmp_path: Path, migrated_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TIERWISE_HOME without any router; the working folder is beside it."""
    home = tmp_path / "state"
    home.mkdir()
    shutil.copy(migrated_store, home / "mlflow.db")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("TIERWISE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def small_training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file of heads that are fitted within a second."""
    path = tmp_path_factory.mktemp("config") / "small.toml"
    heads = 'members = "kernel"\nlandmarks = 150\ncomponents = 4\ntrees = 30\nlearning_rate = 0.1\ntoken_trees = 10\n'
    path.write_text(f"[training.heads]\n{heads}")
    return path


@pytest.fixture(scope="session")
def trained_home(
    tmp_path_factory: pytest.TempPathFactory, migrated_store: Path, encoder_folder: Path, small_training: Path
) -> Path:
    """A state folder with the real encoder and two versions, the first promoted. To be copied, not changed."""
    from training.cli import tierwise

    folder = tmp_path_factory.mktemp("trained")
    home = folder / "state"
    (home / "encoders").mkdir(parents=True)
    shutil.copy(migrated_store, home / "mlflow.db")
    shutil.copytree(encoder_folder, home / "encoders" / encoder_folder.name)
    log = made_up_log(folder / "log.jsonl", 400)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TIERWISE_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for promote in (["--promote"], []):
            arguments = ["train", "--logs", str(log), "--config", str(small_training), *promote]
            tierwise(arguments, standalone_mode=False)
    return home


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine's reaches a test."""
    for name in list(os.environ):
        if name.startswith(("TIERWISE_", "MLFLOW_TRACKING")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="session")
def _loopback_only() -> Iterator[None]:
    """A connection to anywhere else fails the test that tried it."""
    with pytest.MonkeyPatch.context() as patch:
        stay_on_loopback(patch)
        yield


@pytest.fixture
def stand_in() -> "StandIn":
    """A provider that is none, with the models of tests/gateway.py."""
    from tests.gateway import MODELS
    from tests.stand_in.server import StandIn

    return StandIn(models=MODELS)


@pytest.fixture
def through(tmp_path: Path, bundle: Bundle, stand_in: "StandIn") -> "Iterator[OpenAI]":
    """The official client, pointed at the service in front of the stand-in; the ledger is in `tmp_path`."""
    from tests.gateway import client_of, gateway

    with gateway(tmp_path, bundle, stand_in) as url, client_of(url) as client:
        yield client
