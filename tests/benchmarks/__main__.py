"""Every benchmark, on a router trained for the occasion: JSON lines on stdout, a table on stderr.

python -m tests.benchmarks [NAME …] runs those named, and always the training, whose router the others use.
Exit status 1 when a bar is missed.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.benchmarks import (
    bench_decision,
    bench_encoder,
    bench_features,
    bench_imports,
    bench_promotion,
    bench_service,
    bench_training,
)
from tests.benchmarks.figures import Figure, table


def _encoder(_home: Path) -> Iterator[Figure]:
    """The lines of `bench_encoder` as figures."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        bench_encoder.main()
    for line in map(json.loads, said.getvalue().splitlines()):
        yield Figure("encoder", f"CPU of a pass, {line['tokens']} tokens", line["cpu_ms"], "ms")
        yield Figure("encoder", f"the same ÷ fp32 dense layers, {line['tokens']} tokens", line["ratio"], "×")


BENCHMARKS: Final[dict[str, Callable[[Path], Iterator[Figure]]]] = {
    "training": bench_training.measure,
    "imports": bench_imports.measure,
    "features": bench_features.measure,
    "encoder": _encoder,
    "decision": bench_decision.measure,
    "service": bench_service.measure,
    "promotion": bench_promotion.measure,
}


def main() -> int:
    """Run them; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names
    if unknown := sorted(set(names) - set(BENCHMARKS)):
        parser.error(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    _forget_the_users_settings()
    figures: list[Figure] = []
    try:
        with tempfile.TemporaryDirectory(prefix="tierwise-bench-") as home:
            for name, measure in BENCHMARKS.items():
                if name == "training" or not names or name in names:
                    print(f"benchmark {name} …", file=sys.stderr, flush=True)
                    for figure in measure(Path(home)):
                        figures.append(figure)
                        print(figure.json_line(), flush=True)
    finally:
        print(f"\n{table(figures)}", file=sys.stderr)
    return 1 if any(figure.met is False for figure in figures) else 0


def _forget_the_users_settings() -> None:
    """Neither a state folder nor a tracking server of the user's is touched."""
    for name in list(os.environ):
        if name.startswith(("TIERWISE_", "MLFLOW_")) or name == "BENTOML_HOME":
            del os.environ[name]
    os.environ.update(
        BENTOML_DO_NOT_TRACK="True", MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false"
    )


if __name__ == "__main__":
    sys.exit(main())
