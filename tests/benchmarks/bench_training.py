"""What does a training on the bundled outcomes take: time, memory, and is any prompt embedded again?"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.benchmarks.figures import Figure
from tests.benchmarks.running import tierwise

MAX_WALL_S: Final = 180
MAX_RSS_MB: Final = 2000


def measure(home: Path) -> Iterator[Figure]:
    """Train the first version in an empty `home` and promote it; the other benchmarks serve it."""
    started = time.perf_counter()
    process = tierwise(home, "train", "--promote")
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"tierwise train ended with status {process.returncode}")
    yield Figure("training", "wall time", wall_s, "s", bar=MAX_WALL_S)
    yield Figure("training", "CPU time", usage.ru_utime + usage.ru_stime, "s")
    yield Figure("training", "peak memory", usage.ru_maxrss / 1000, "MB", bar=MAX_RSS_MB)
    written = len(list(home.rglob("embeddings/*.db")))
    yield Figure("training", "embedding stores written", written, "", bar=0)
