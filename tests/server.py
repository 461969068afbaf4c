"""A real server in a process of its own: started on a free port of loopback, awaited, stopped by its id."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

_READY_WITHIN_S: Final = 90.0  # a busy machine compiles every module it imports
_STOPPED_WITHIN_S: Final = 30.0


@dataclass(frozen=True)
class Server:
    """A server that has said it is ready."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path

    def route(self, prompt: str) -> dict[str, Any]:
        """The decision of `POST /route`, which must succeed."""
        response = self.client.post("/route", json={"prompt": prompt})
        assert response.status_code == 200, response.text
        return dict(response.json())

    def status(self) -> dict[str, Any]:
        """What `GET /status` says."""
        return dict(self.client.get("/status").raise_for_status().json())

    def stop(self) -> int:
        """Ask it to end, as an operator would; gives its exit status."""
        self.process.terminate()
        return self.process.wait(_STOPPED_WITHIN_S)


def tierwise() -> str:
    """The console script of this environment."""
    command = shutil.which("tierwise", path=str(Path(sys.executable).parent))
    assert command is not None, "the project is not installed in this environment"
    return command


def environment(**variables: str) -> dict[str, str]:
    """This process's variables without anybody's settings, and `variables`."""
    ours = ("TIERWISE_", "MLFLOW_TRACKING", "BENTOML_HOME", "BENTOML_PORT", "PROMETHEUS_MULTIPROC_DIR")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | variables


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, *, folder: Path, variables: Mapping[str, str], log: Path
) -> Iterator[Server]:
    """`command`, which listens on `port`, in `folder`, ready to answer until the end of the block."""
    with (
        log.open("wb") as output,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client,
    ):
        process = subprocess.Popen(command, cwd=folder, env=dict(variables), stdout=output, stderr=output)
        try:
            _await(process, client, log)
            yield Server(process, client, log)
        finally:
            _end(process)


@contextlib.contextmanager
def serving(home: Path, folder: Path, **settings: str) -> Iterator[Server]:
    """`tierwise serve` on the state in `home`, started in `folder`, where its log goes too."""
    port = free_port()
    with running(
        [tierwise(), "serve", "--port", str(port)],
        port,
        folder=folder,
        variables=environment(TIERWISE_HOME=str(home), **settings),
        log=folder / "serve.log",
    ) as server:
        yield server


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _await(process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < _READY_WITHIN_S and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"not ready, exit status {process.poll()}:\n{log.read_text(errors='replace')}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its workers, by their ids, however it stands."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOPPED_WITHIN_S)
        for left in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
    if process.poll() is None:
        process.kill()
    process.wait()
