"""Does a promotion under load lose a request, and how soon does the new version answer?"""

import contextlib
import http.client
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Final

import mlflow

from serving.classifier.bundle import write_bundle
from serving.routing.promoted import pointed_to
from tests.benchmarks.figures import Figure
from tests.benchmarks.prompts import new_prompts
from tests.benchmarks.running import Client, running_service
from training.registry import BUNDLE_ARTIFACT, EXPERIMENT, Registry

PROMOTIONS: Final = 20
CLIENTS: Final = 4
MAX_TAKEOVER_S: Final = 2
_GIVE_UP_AFTER_S: Final = 15.0


def measure(home: Path) -> Iterator[Figure]:
    """Promote two versions in turns while clients send new and repeated prompts."""
    registry = Registry(home)
    champion = registry.resolve("champion")
    other = _registered_again(registry, champion)
    with running_service(home) as service, _load(service.port) as load:
        taken = [_takeover_s(registry, number, load) for number, _ in zip(cycle((other, champion)), range(PROMOTIONS))]
    yield Figure("promotion", "requests under load", load.answered, "")
    yield Figure("promotion", "failed or degraded requests", load.failed, "", bar=0)
    yield Figure("promotion", "routers seen", len(load.routers), "", bar=2, at_least=True)
    yield Figure("promotion", "longest until the new version answers", max(taken), "s", bar=MAX_TAKEOVER_S)
    yield Figure("promotion", "median until the new version answers", statistics.median(taken), "s")


class _Load:
    """What the clients saw."""

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0
        self.routers: set[str] = set()
        self.changes: list[tuple[float, str]] = []  # when a client first had an answer by another router
        self.stop = threading.Event()
        self._lock = threading.Lock()

    def run(self, port: int, seed: int) -> None:
        """One client: a new prompt, then an old one, until `stop`."""
        client, last = Client(port), ""
        for text in new_prompts(16, seed=seed):
            for prompt in (text, "What was asked before?"):
                router = self._answer(client, prompt)
                if router and router != last:
                    self.changes.append((time.time(), router))
                    last = router
            if self.stop.is_set():
                client.close()
                return

    def _answer(self, client: Client, prompt: str) -> str | None:
        """The router that answered; None counts as failed."""
        try:
            status, decision = client.route(prompt)
        except (OSError, http.client.HTTPException, ValueError):
            client.close()
            status, decision = 0, {}
        failed = status != 200 or decision["reason"] == "fallback"
        with self._lock:
            self.answered += 1
            self.failed += failed
            if not failed:
                self.routers.add(decision["router"])
        return None if failed else str(decision["router"])


@contextlib.contextmanager
def _load(port: int) -> Iterator[_Load]:
    load = _Load()
    clients = [threading.Thread(target=load.run, args=(port, seed)) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield load
    finally:
        load.stop.set()
        for client in clients:
            client.join()


def _takeover_s(registry: Registry, number: int, load: _Load) -> float:
    """Seconds from the pointer's replacement to the first answer by the version, at most `_GIVE_UP_AFTER_S`."""
    before = time.time()
    registry.promote(number)
    pointer = pointed_to(registry.home)
    written = (registry.home / "served" / "current.json").stat().st_mtime
    name = f"{pointer.version}@{pointer.digest[:12]}"
    while time.time() - before < _GIVE_UP_AFTER_S:
        for when, router in load.changes[-4 * CLIENTS :]:
            if router == name and when >= written:
                return when - written
        time.sleep(0.005)
    return _GIVE_UP_AFTER_S


def _registered_again(registry: Registry, number: int) -> int:
    """A version with the heads of another and a digest of its own."""
    with registry.bundle(number) as (_, bundle), tempfile.TemporaryDirectory() as folder:
        manifest = bundle.manifest.model_copy(update={"created": datetime.now(UTC)})
        write_bundle(Path(folder) / BUNDLE_ARTIFACT, replace(bundle, manifest=manifest))
        with mlflow.start_run(experiment_id=registry.experiment_id(EXPERIMENT)) as run:
            mlflow.log_artifacts(str(Path(folder) / BUNDLE_ARTIFACT), BUNDLE_ARTIFACT)
    return registry.register(run.info.run_id, "The same heads again, for the benchmark", {})
