"""Every figure on the quality of the router, from the public tables: docs/quality.md and its pictures.

python -m tests.quality TABLES [NAME …] measures all sections, or those named, which are then printed and not written.
TABLES is a folder with the tables and `clean.parquet`; embeddings are kept under TIERWISE_HOME.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from serving.classifier.bundle import read_bundle
from serving.errors import TierwiseError
from serving.settings import read_settings
from tests.benchmarks import bench_decision, bench_training
from tests.quality import calibration, cold_start, in_domain, light, money, out_of_domain, promises
from tests.quality.section import Section, bars_markdown
from tests.quality.tables import Sources, named
from training.public_outcomes import training_texts
from training.registry import BUNDLE_ARTIFACT
from training.shared_words import sharing

DOCS = Path(__file__).parents[2] / "docs"
_INTRODUCTION = """\
# How good the router is

    make quality TABLES=path/to/tables

measures all of this and writes this page. The tables are public outcomes of real models ([where they come
from](benchmarks.md#public-tables)); none of their texts are in this repository. Two numbers in brackets are
a 95 % interval: a bootstrap over groups of prompts alike, unless a section says otherwise. What each figure means is in
[metrics.md](metrics.md); what was tried, and what did not help, in
[decisions/2026-11-26-kernel.md](decisions/2026-11-26-kernel.md).

## The bars
"""


def main() -> int:
    """Measure, print, and write the page when everything was measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description="Quality on the public tables.")
    parser.add_argument("tables", type=Path, metavar="TABLES")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    if not (options.tables / "clean.parquet").exists():
        parser.error(f"{options.tables}: no clean.parquet there; give the folder with the tables")
    try:
        with tempfile.TemporaryDirectory(prefix="tierwise-quality-") as home:
            sections = _measured(Sources(options.tables, read_settings().home), Path(home), options.names, parser)
    except TierwiseError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    bars = [bar for section in sections for bar in section.bars]
    page = _INTRODUCTION + "\n" + bars_markdown(bars) + "\n"
    page += "\n".join(section.markdown("images/quality") for section in sections)
    print(page)
    if not options.names:
        _write(page, sections)
    return 0


def _measured(sources: Sources, home: Path, names: list[str], parser: argparse.ArgumentParser) -> list[Section]:
    figures = list(bench_training.measure(home))  # the default router, as `make serve` trains it
    folder = next(home.glob(f"artifacts/*/artifacts/{BUNDLE_ARTIFACT}"))
    bundle = read_bundle(folder)
    known: dict[str, Callable[[], Section]] = {
        "out_of_domain": lambda: out_of_domain.measure(bundle, sources, _shared(sources)),
        "in_domain": lambda: in_domain.measure(sources),
        "cold_start": lambda: cold_start.measure(sources),
        "calibration": lambda: calibration.measure(bundle, sources),
        "promise": lambda: promises.measure(sources),
        "money": lambda: money.measure(sources),
        "light": lambda: light.measure([*figures, *bench_decision.measure(home)], folder),
    }
    if unknown := sorted(set(names) - known.keys()):
        parser.error(f"there is no section {unknown[0]!r}; there are: {', '.join(known)}")
    sections = []
    for name in names or known:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        sections.append(known[name]())
    return sections


def _shared(sources: Sources) -> list[int]:
    training = training_texts(sources.folder)
    tables = [named(name) for name in out_of_domain.TABLES]
    return [sum(sharing(sources.texts(table, sources.examples(table)), training)) for table in tables]


def _write(page: str, sections: list[Section]) -> None:
    (DOCS / "quality.md").write_text(page, "utf-8")
    images = DOCS / "images" / "quality"
    images.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for name, figure in section.figures.items():
            figure.savefig(images / f"{name}.png", dpi=90)


if __name__ == "__main__":
    sys.exit(main())
