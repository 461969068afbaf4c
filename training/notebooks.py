"""What the notebooks share: where they find the state, and how figures are laid side by side."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pandas as pd

from serving.settings import read_settings
from training.libraries import prepare_libraries

_SHOWN: Final = ("policy/retained_quality.", "policy/relative_cost.", "tier/auc.", "tier/ece.", "tier/brier.")


def open_state() -> Path:
    """The folder of all state, as `tierwise` finds it in the project's folder, which becomes the working folder.

    To be called before anything imports MLflow. Raises ConfigurationError when a setting is wrong.
    """
    prepare_libraries()
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, of bars that MLflow would show
    os.chdir(Path(__file__).parent.parent)
    return read_settings().home.resolve()


def side_by_side(routers: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """The main figures, one a row, of each router's metrics, one a column: `0.950 [0.910, 0.980]`.

    A dash where a router has no such figure: another ladder, or not enough evidence.
    """
    names = dict.fromkeys(name for metrics in routers.values() for name in metrics if _is_shown(name))
    cells = {router: [_cell(metrics, name) for name in names] for router, metrics in routers.items()}
    return pd.DataFrame(cells, index=list(names))


def _is_shown(name: str) -> bool:
    if name.endswith((".low", ".high")):
        return False
    return name.startswith(_SHOWN) or name in ("support/judged_prompts", "ranking/apgr")


def _cell(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return "–"
    if name.startswith("support/"):
        return f"{metrics[name]:,.0f}"
    if f"{name}.low" not in metrics:
        return f"{metrics[name]:.3f}"
    return f"{metrics[name]:.3f} [{metrics[f'{name}.low']:.3f}, {metrics[f'{name}.high']:.3f}]"
