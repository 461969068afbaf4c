"""The notebooks: run from top to bottom in a kernel of their own, on the log in the box; and what they share."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from training.data import DATASETS
from training.notebooks import side_by_side
from training.registry import Registry

NOTEBOOKS = DATASETS.parent / "notebooks"


@pytest.fixture
def home(state: Path, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state without any router, for a kernel that reads and writes nothing of the user's own Jupyter."""
    shutil.copytree(encoder_folder, state / "encoders" / encoder_folder.name)
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))
    return state


def run(name: str, folder: Path, config: Path) -> nbformat.NotebookNode:
    """The notebook as executed in `folder`, with the configuration that a user may set on top.

    Raises CellExecutionError with the traceback when a cell fails.
    """
    book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    assert book.cells[1].source.count("CONFIG = None") == 1
    book.cells[1].source = book.cells[1].source.replace("CONFIG = None", f"CONFIG = {str(config)!r}")
    guard = "import pytest\nfrom tests.loopback import stay_on_loopback\n\nstay_on_loopback(pytest.MonkeyPatch())"
    book.cells.insert(0, nbformat.v4.new_code_cell(guard))
    NotebookClient(book, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    return book


def pictures(book: nbformat.NotebookNode) -> int:
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def answer(book: nbformat.NotebookNode) -> str:
    return str(book.cells[-1].outputs[-1]["data"]["text/markdown"])


def test_retraining_leads_from_a_log_to_a_promoted_version(home: Path, small_training: Path) -> None:
    book = run("retrain_on_new_logs", NOTEBOOKS, small_training)
    assert answer(book).startswith("**version 1 is promoted and serves.**")
    assert pictures(book) == 4  # the log; curve, shares and reliability
    (version,) = Registry(home).versions()
    assert version.aliases == ("champion",)
    assert (home / "served" / "current.json").exists()


def test_comparing_trains_what_is_missing_and_promotes_nothing(home: Path, small_training: Path) -> None:
    book = run("compare_versions", NOTEBOOKS.parent, small_training)
    assert "Brier score of version 2 less that of version 1" in answer(book)
    assert pictures(book) == 4  # the curves of both; reliability of each; tasks on which they differ
    assert len(Registry(home).versions()) == 2
    assert not (home / "served").exists()


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_in_the_repository_has_no_outputs(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    for cell in book.cells:
        assert not cell.get("outputs"), "clear all outputs before you commit: they hold prompts"
        assert cell.get("execution_count") is None
        assert not cell.metadata


def test_figures_stand_side_by_side_with_their_intervals() -> None:
    old = {"tier/auc.economy": 0.7, "tier/auc.economy.low": 0.65, "tier/auc.economy.high": 0.75}
    new = {"support/judged_prompts": 1200.0, "tier/auc.economy": 0.8, "policy/share.premium.at_95": 0.3}
    table = side_by_side({"old": old, "new": new})
    assert table.to_dict("index") == {
        "tier/auc.economy": {"old": "0.700 [0.650, 0.750]", "new": "0.800"},
        "support/judged_prompts": {"old": "–", "new": "1,200"},
    }
