"""Every benchmark, on a router trained for the occasion: JSON lines on stdout, a table on stderr.

python -m tests.benchmarks [NAME …] runs those named, and always the training, whose router the others use.
Exit status 1 when a bar is missed.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.benchmarks.figures import Figure, table

NAMES: Final = (
    "training", "imports", "features", "hostile", "encoder", "decision", "rules", "ledger", "service", "promotion",
    "clients", "gateway", "litellm",
)  # fmt: skip


def main() -> int:
    """Run them; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    chosen = parser.parse_args().names
    if unknown := sorted(set(chosen) - set(NAMES)):
        parser.error(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}")
    _forget_the_users_settings()
    _say(f"load average before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    figures: list[Figure] = []
    try:
        with tempfile.TemporaryDirectory(prefix="tierwise-bench-") as home:
            _keep_bytecode(Path(home) / "bytecode")
            for name in NAMES:
                if name == "training" or not chosen or name in chosen:
                    _say(f"benchmark {name} …")
                    for figure in _measured(name, Path(home)):
                        figures.append(figure)
                        print(figure.json_line(), flush=True)
    finally:
        _say(f"\n{table(figures)}")
    return 1 if any(figure.met is False for figure in figures) else 0


def _measured(name: str, home: Path) -> Iterator[Figure]:
    """The figures of one benchmark, imported only now: MLflow stays out of the process until it is needed."""
    module = importlib.import_module(f"tests.benchmarks.bench_{name}")
    if name != "encoder":
        yield from module.measure(home)
        return
    with contextlib.redirect_stdout(io.StringIO()) as said:
        module.main()
    for line in map(json.loads, said.getvalue().splitlines()):
        yield Figure(name, f"CPU of a pass, tokens: {line['tokens']}", line["cpu_ms"], "ms")
        yield Figure(name, f"the same ÷ fp32 dense layers, tokens: {line['tokens']}", line["ratio"], "×")


def _forget_the_users_settings() -> None:
    """Neither a state folder nor a tracking server of the user's is touched."""
    for name in list(os.environ):
        if name.startswith(("TIERWISE_", "MLFLOW_")) or name == "BENTOML_HOME":
            del os.environ[name]
    os.environ.update(
        BENTOML_DO_NOT_TRACK="True", MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false"
    )


def _keep_bytecode(folder: Path) -> None:
    """Where the environment forbids to write it, every start would compile all modules again: 2 s of 4."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
