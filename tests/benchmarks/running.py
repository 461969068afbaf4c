"""A `tierwise` command in a process of its own, and the service with a client that stays connected."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import psutil

from serving.classifier.encoder import Encoder
from serving.routing.promoted import PromotedRouter, pointed_to

_READY_WITHIN_S: Final = 60.0


def tierwise(home: Path, *arguments: str, output: IO[Any] | None = None) -> subprocess.Popen[bytes]:
    """The command, started with its state and its working folder in `home`."""
    command = shutil.which("tierwise", path=str(Path(sys.executable).parent))
    assert command is not None, "the project is not installed in this environment"
    return subprocess.Popen(
        [command, *arguments],
        cwd=home,  # no tierwise.toml of the user's is read
        env=os.environ | {"TIERWISE_HOME": str(home)},
        stdout=output or sys.stderr,
        stderr=output or sys.stderr,
    )


class Client:
    """One connection, kept between requests."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        return response.status, response.read()

    def route(self, prompt: str) -> tuple[int, dict[str, Any]]:
        """Status and decision of `POST /route`."""
        body = json.dumps({"prompt": prompt})
        self._connection.request("POST", "/route", body, {"content-type": "application/json"})
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def close(self) -> None:
        """Drop the connection; the next request makes another."""
        self._connection.close()


@dataclass(frozen=True)
class Service:
    """A running service: seconds until the promoted router served, on the clock and in CPU time, and where it is."""

    ready_s: float
    cpu_s: float
    port: int
    process: psutil.Process

    def worker(self) -> psutil.Process:
        """The process that answers: the child that holds most memory."""
        return max(self.process.children(recursive=True), key=lambda child: child.memory_info().rss)


@contextlib.contextmanager
def running_service(home: Path) -> Iterator[Service]:
    """`tierwise serve` on a free port of loopback, until the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = tierwise(home, "serve", "--port", str(port), output=log)
        try:
            promoted = pointed_to(home)
            name = f"{promoted.version}@{promoted.digest[:12]}"
            while not _serves(port, name):
                if process.poll() is not None or time.perf_counter() - started > _READY_WITHIN_S:
                    log.seek(0)
                    raise RuntimeError(f"the service does not serve {name}:\n{log.read().decode(errors='replace')}")
                time.sleep(0.05)
            ready_s, root = time.perf_counter() - started, psutil.Process(process.pid)
            yield Service(ready_s, sum(map(cpu_s, [root, *root.children(recursive=True)])), port, root)
        finally:
            _stop(process)


def promoted_encoder(home: Path) -> Encoder:
    """The encoder of the promoted router, in this process."""
    promoted = PromotedRouter(home)
    promoted.refresh()
    memo = promoted.router.classifier.memo
    assert memo is not None, promoted.problem
    return memo.encoder


def cpu_s(process: psutil.Process) -> float:
    """User and system time of a process, in steps of 10 ms."""
    times = process.cpu_times()
    return times.user + times.system


def _serves(port: int, router: str) -> bool:
    """Whether the service says it is ready, and the promoted router serves without a problem."""
    client = Client(port)
    try:
        if client.get("/readyz")[0] != 200:
            return False
        status = json.loads(client.get("/status")[1])
        return status["router"] == router and not status["degraded"]
    except (OSError, http.client.HTTPException):
        return False
    finally:
        client.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    for left in [child for child in family if child.is_running()]:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    if process.poll() is None:
        process.kill()
    process.wait()
