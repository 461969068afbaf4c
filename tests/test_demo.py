"""The demo says what it is, where each request went and why, and what it all cost."""

import subprocess
import sys
from pathlib import Path

from tests.demo import WORKLOAD
from tests.server import environment


def test_each_request_has_its_line_and_the_report_follows(trained_home: Path, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.demo"],
        cwd=Path(__file__).parents[1],
        env=environment(TIERWISE_HOME=str(trained_home), TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "a stand-in on loopback with no model behind it" in found.stdout
    lines = [line for line in found.stdout.splitlines() if line.startswith(("support ", "data ", "legal ", "search "))]
    requests = lines[: len(WORKLOAD)]
    assert sum(" policy " in line for line in requests) >= len(WORKLOAD) - 2
    assert " by name " in requests[-2]
    assert " refused with 404" in requests[-1]
    assert f"on {len(WORKLOAD)} requests" in found.stdout
    assert not list(tmp_path.glob("tierwise-demo-*"))
