"""How heavy is a router? Beside the encoder, on disk, and to train."""

from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.figures import Figure
from tests.quality.section import Bar, Section

_MOST_MB = 20.0


def measure(figures: Sequence[Figure], bundle_folder: Path) -> Section:
    """figures: of the benchmarks `training` and `decision`. bundle_folder: of the router they trained."""
    weights = (bundle_folder / "heads.npz").stat().st_size / 1e6
    found = [*figures, Figure("size", "heads on disk", weights, "MB", bar=_MOST_MB)]
    return Section(
        title="Light",
        text="""
            CPU medians of single decisions on one thread, and the training of the default router. These are the figures
            that differ from run to run and from machine to machine: the encoder's own pass is beside them.
        """,
        header=["", "found", "bar"],
        rows=[[f.figure, _shown(f), "" if f.bar is None else f"≤ {f.bar:g} {f.unit}"] for f in found],
        bars=[Bar(f"light, {f.figure}", _shown(f), f"≤ {f.bar:g} {f.unit}", f.met) for f in found if f.bar is not None],
    )


def _shown(figure: Figure) -> str:
    return f"{figure.value:.3g} {figure.unit}" if figure.value < 1000 else f"{figure.value:,.0f} {figure.unit}"
