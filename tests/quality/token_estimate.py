"""How far are estimated tokens from those that providers counted?

python -m tests.quality.token_estimate TABLES: for each model whose recorded usage is in `routerarena_sub10.parquet`,
the median error of one text, and estimated ÷ counted over all, with 95 % intervals (bootstrap over prompts), beside
four characters to a token. The estimate was fitted to tokenizers of other models, not to these counts.
"""

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving.token_estimate import estimated_tokens

TABLE: Final = "routerarena_sub10.parquet"
_DRAWS: Final = 2_000
_SIDES: Final = (("prompt", "input_tokens"), ("response", "output_tokens"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality.token_estimate")
    parser.add_argument("tables", type=Path, metavar="TABLES")
    table = pd.read_parquet(parser.parse_args().tables / TABLE)
    print(f"{'':50}{'median error of a text':28}{'estimated ÷ counted'}")
    for side, tokens in _SIDES:
        for model, rows in table.groupby("model"):
            known = rows[rows[side].notna() & (rows[tokens] > 0)]
            counted = known[tokens].to_numpy(float)
            estimates = {
                "estimate": known[side].map(estimated_tokens).to_numpy(float),
                "4 characters": known[side].str.len().to_numpy(float) / 4,
            }
            for name, estimated in estimates.items():
                print(f"{side + ', ' + str(model):36}{name:14}{_errors(estimated, counted)}")


def _errors(estimated: NDArray[np.float64], counted: NDArray[np.float64]) -> str:
    rng = np.random.default_rng(0)
    draws = rng.integers(len(counted), size=(_DRAWS, len(counted)))
    errors = np.abs(estimated / counted - 1)
    return (
        f"{_shown(float(np.median(errors)), np.median(errors[draws], axis=1)):28}"
        f"{_shown(float(estimated.sum() / counted.sum()), estimated[draws].sum(axis=1) / counted[draws].sum(axis=1))}"
        f"  (n = {len(counted):,})"
    )


def _shown(value: float, draws: NDArray[np.float64]) -> str:
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
