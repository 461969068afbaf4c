"""Where router versions live: bundles as MLflow model versions, aliases that say which serves, and promotion.

`champion` serves, `challenger` is the version trained last, until it is promoted. Promotions are kept in a tag of the
registered model, newest last, so that a rollback knows where to go back to.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from serving.classifier.bundle import Bundle, Manifest, read_bundle
from serving.errors import RegistryError
from serving.routing.promoted import Pointer
from training.encoders import put_in_place

NAME: Final = "tierwise-router"
EXPERIMENT: Final = "tierwise"
EVALUATIONS: Final = "tierwise-evaluations"
BUNDLE_ARTIFACT: Final = "bundle"
_PROMOTIONS: Final = "tierwise.promotions"
_KEPT_EXPORTS: Final = 3
_EXPORT: Final = re.compile(r"\d+-[0-9a-f]{12}-\d+")


Check = Callable[[Manifest], None]
"""Raises what is wrong with a version for the settings at hand."""


@dataclass(frozen=True)
class Version:
    """One registered router. data: the name of what it was trained on."""

    number: int
    run_id: str
    aliases: tuple[str, ...]
    created_ms: int
    data: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


class Registry:
    """The versions in one MLflow store, and the folder that the service watches.

    The store is `MLFLOW_TRACKING_URI` when set, else `mlflow.db` with its artifacts under `home`.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home.resolve()
        self._local = "MLFLOW_TRACKING_URI" not in os.environ
        self.uri = f"sqlite:///{self.home / 'mlflow.db'}" if self._local else os.environ["MLFLOW_TRACKING_URI"]
        mlflow.set_tracking_uri(self.uri)
        if self._local:  # MLflow exports it to the environment, where the next registry would take it for a user's
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        self._client = MlflowClient(self.uri)

    def experiment_id(self, name: str) -> str:
        """An experiment, made on first use: EXPERIMENT for trainings, EVALUATIONS for evaluations."""
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = (self.home / "artifacts").as_uri() if self._local else None
        return str(self._client.create_experiment(name, artifact_location=location))

    def looks(self, outcomes_digest: str) -> int:
        """How many trainings and evaluations have printed figures on these outcomes; beyond 1,000 it says 1,000."""
        ids = [self.experiment_id(name) for name in (EXPERIMENT, EVALUATIONS)]
        found = self._client.search_runs(ids, f"tags.outcomes_digest = '{outcomes_digest}'", max_results=1000)
        return len(found)

    def register(self, run_id: str, description: str, tags: Mapping[str, str]) -> int:
        """Make the bundle that a run logged the newest version, `challenger` until it is promoted.

        The run's name gets the version in front, so that legends of MLflow's charts tell versions apart.
        """
        if self._registered() is None:
            self._client.create_registered_model(NAME, description="Routers trained by Tierwise")
        run = self._client.get_run(run_id).info
        source = f"{run.artifact_uri}/{BUNDLE_ARTIFACT}"
        version = self._client.create_model_version(
            NAME, source=source, run_id=run_id, description=description, tags=dict(tags)
        )
        self._client.update_run(run_id, name=f"version {version.version}: {run.run_name}")
        self._client.set_registered_model_alias(NAME, "challenger", version.version)
        return int(version.version)

    def versions(self) -> list[Version]:
        """Every version, newest first; none before the first training."""
        found = self._client.search_model_versions(f"name='{NAME}'", max_results=1000)
        aliases = self._aliases()
        return [self._version(version, aliases) for version in sorted(found, key=lambda v: -int(v.version))]

    def resolve(self, reference: str) -> int:
        """The number of `champion`, `challenger` or a version. Raises RegistryError listing what there is."""
        numbers = [version.number for version in self.versions()]
        aliases = self._aliases()
        if reference in aliases:
            return aliases[reference]
        if reference.isdecimal() and int(reference) in numbers:
            return int(reference)
        known = ", ".join([*sorted(aliases), *map(str, sorted(numbers))]) or "none yet; run: tierwise train"
        raise RegistryError(f"there is no router {reference!r}; there are: {known}")

    @contextlib.contextmanager
    def bundle(self, number: int) -> Iterator[tuple[Path, Bundle]]:
        """The folder and the checked bundle of a version, for the length of the block."""
        with tempfile.TemporaryDirectory(prefix="tierwise-") as folder:
            try:
                mlflow.artifacts.download_artifacts(f"models:/{NAME}/{number}", dst_path=folder)
            except (MlflowException, OSError) as error:
                raise RegistryError(f"the artifacts of version {number} cannot be read: {error}") from None
            yield Path(folder), read_bundle(Path(folder))

    def promote(self, number: int, *, forced: bool = False, fits: Check = lambda _: None) -> Manifest:
        """Make a version the champion and hand it to the service, which follows within two seconds; gives its manifest.

        Raises BundleError when its files are not what was registered, and what `fits` raises when the version does not
        fit the service's settings; nothing changes then.
        """
        history = self._promotions()
        manifest = self._export(number, fits)
        self._client.set_registered_model_alias(NAME, "champion", str(number))
        if self._aliases().get("challenger") == number:
            self._client.delete_registered_model_alias(NAME, "challenger")
        if forced:
            self._client.set_model_version_tag(NAME, str(number), "tierwise.promoted_by_force", "true")
        if history[-1:] != [number]:  # promoted again to mend its files: a rollback still leads to the one before
            self._record([*history, number])
        self._forget_old_exports()
        return manifest

    def rollback(self, *, fits: Check = lambda _: None) -> int:
        """Make the champion before this one the champion again; gives its number. Raises what `promote` raises."""
        history = self._promotions()
        if len(history) < 2:
            raise RegistryError("there is no earlier champion to go back to")
        previous = history[-2]
        self._export(previous, fits)
        self._client.set_registered_model_alias(NAME, "champion", str(previous))
        self._record(history[:-1])
        return previous

    def _export(self, number: int, fits: Check) -> Manifest:
        """Copy a version's bundle to where workers look; the pointer to it is written last, atomically.

        Raises EncoderError when its encoder is not there and is not the default one, which is built.
        """
        served = self.home / "served"
        with self.bundle(number) as (source, bundle):
            fits(bundle.manifest)
            if bundle.manifest.encoder is not None:  # of a version trained elsewhere, it may not be here yet
                put_in_place(self.home, bundle.manifest.encoder)
            folder = f"{number}-{bundle.digest[:12]}-{time.time_ns()}"
            pointer = Pointer(version=str(number), folder=folder, digest=bundle.digest)
            shutil.copytree(source, served / f".{folder}")
        os.replace(served / f".{folder}", served / folder)
        draft = served / f".current.{os.getpid()}.json"
        draft.write_text(pointer.model_dump_json(), "utf-8")
        os.replace(draft, served / "current.json")
        return bundle.manifest

    def _forget_old_exports(self) -> None:
        """Keeps the last few, for workers that are reading one and for whoever compares."""
        exports = [f for f in (self.home / "served").iterdir() if _EXPORT.fullmatch(f.name)]
        exports.sort(key=lambda folder: int(folder.name.rsplit("-", 1)[1]))
        for old in exports[:-_KEPT_EXPORTS]:
            shutil.rmtree(old, ignore_errors=True)

    def _registered(self) -> RegisteredModel | None:
        try:
            return self._client.get_registered_model(NAME)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise RegistryError(f"the MLflow store {self.uri} does not answer: {error.message}") from error

    def _aliases(self) -> dict[str, int]:
        model = self._registered()
        return {} if model is None else {alias: int(version) for alias, version in model.aliases.items()}

    def _promotions(self) -> list[int]:
        model = self._registered()
        if model is None:
            raise RegistryError("no router is registered yet; run: tierwise train")
        return [int(number) for number in json.loads(model.tags.get(_PROMOTIONS, "[]"))]

    def _record(self, promotions: list[int]) -> None:
        self._client.set_registered_model_tag(NAME, _PROMOTIONS, json.dumps(promotions[-100:]))

    def _version(self, version: ModelVersion, aliases: Mapping[str, int]) -> Version:
        number = int(version.version)
        run = self._client.get_run(version.run_id).data
        return Version(
            number=number,
            run_id=version.run_id,
            aliases=tuple(sorted(alias for alias, of in aliases.items() if of == number)),
            created_ms=version.creation_timestamp,
            data=run.params.get("data", ""),
            metrics=dict(run.metrics),
            tags=dict(version.tags),
        )
