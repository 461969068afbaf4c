"""Versions in a real MLflow store, which of them serves, and the way back."""

import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pytest

from serving.classifier.bundle import Bundle, read_bundle, write_bundle
from serving.errors import BundleError, EncoderError, RegistryError
from serving.routing.promoted import pointed_to
from tests.factories import IDENTITY, place_fake_encoder
from training.registry import BUNDLE_ARTIFACT, EXPERIMENT, NAME, Registry


@pytest.fixture
def registry(state: Path) -> Registry:
    place_fake_encoder(state)
    return Registry(state)


def registered(registry: Registry, bundle: Bundle, folder: Path) -> int:
    """A new version, with the heads of `bundle` and a digest of its own."""
    created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=len(registry.versions()))
    manifest = bundle.manifest.model_copy(update={"created": created})
    write_bundle(folder / BUNDLE_ARTIFACT, replace(bundle, manifest=manifest))
    with mlflow.start_run(experiment_id=registry.experiment_id(EXPERIMENT)) as run:
        mlflow.log_artifacts(str(folder / BUNDLE_ARTIFACT), BUNDLE_ARTIFACT)
        mlflow.log_metric("support/judged_prompts", 74)
    return registry.register(run.info.run_id, "made up", {"dataset_digest": "d" * 64})


def artifact(registry: Registry, number: int, name: str) -> Path:
    """A file of a registered version, where the store keeps it."""
    (version,) = [version for version in registry.versions() if version.number == number]
    return registry.home / "artifacts" / version.run_id / "artifacts" / BUNDLE_ARTIFACT / name


def aliases(registry: Registry) -> dict[str, int]:
    return {alias: version.number for version in registry.versions() for alias in version.aliases}


def test_an_empty_store_has_no_versions_and_says_what_to_run(registry: Registry) -> None:
    assert registry.versions() == []
    with pytest.raises(RegistryError, match="there is no router '1'; there are: none yet; run: tierwise train"):
        registry.resolve("1")
    with pytest.raises(RegistryError, match="no router is registered yet"):
        registry.rollback()


def test_a_new_version_is_the_challenger_and_nothing_serves(registry: Registry, bundle: Bundle, tmp_path: Path) -> None:
    assert registered(registry, bundle, tmp_path) == 1
    (version,) = registry.versions()
    assert (version.number, version.aliases) == (1, ("challenger",))
    assert version.metrics == {"support/judged_prompts": 74.0}
    assert version.tags == {"dataset_digest": "d" * 64}
    assert not (registry.home / "served").exists()


def test_a_promotion_exports_the_bundle_and_points_to_it(registry: Registry, bundle: Bundle, tmp_path: Path) -> None:
    number = registered(registry, bundle, tmp_path)
    registry.promote(number)
    pointer = pointed_to(registry.home)
    assert pointer.version == "1"
    assert read_bundle(registry.home / "served" / pointer.folder).digest == pointer.digest
    assert aliases(registry) == {"champion": 1}
    assert "tierwise.promoted_by_force" not in registry.versions()[0].tags


def test_a_version_whose_encoder_is_missing_is_refused_with_what_to_do(
    registry: Registry, bundle: Bundle, tmp_path: Path
) -> None:
    shutil.rmtree(registry.home / "encoders")
    number = registered(registry, bundle, tmp_path)
    with pytest.raises(
        EncoderError, match=rf"'fake' {IDENTITY.digest[:12]} is not in .*: tierwise encoder export MODEL"
    ):
        registry.promote(number)
    assert not (registry.home / "served" / "current.json").exists()


def test_rollbacks_go_back_through_the_promotions_in_their_order(
    registry: Registry, bundle: Bundle, tmp_path: Path
) -> None:
    numbers = [registered(registry, bundle, tmp_path) for _ in range(3)]
    for number in (3, 1, 2):
        registry.promote(number)
    assert numbers == [1, 2, 3]
    assert aliases(registry) == {"champion": 2}
    assert registry.rollback() == 1
    assert pointed_to(registry.home).version == "1"
    assert aliases(registry) == {"champion": 1}
    registry.promote(2)
    assert registry.rollback() == 1
    assert registry.rollback() == 3
    with pytest.raises(RegistryError, match="no earlier champion"):
        registry.rollback()
    assert pointed_to(registry.home).version == "3"


def test_promoting_the_champion_again_mends_its_files_and_keeps_the_way_back(
    registry: Registry, bundle: Bundle, tmp_path: Path
) -> None:
    for _ in range(2):
        registry.promote(registered(registry, bundle, tmp_path))
    (registry.home / "served" / pointed_to(registry.home).folder / "heads.npz").unlink()
    registry.promote(2)
    read_bundle(registry.home / "served" / pointed_to(registry.home).folder)
    assert registry.rollback() == 1


def test_versions_are_found_by_number_and_alias_and_others_are_refused_with_what_there_is(
    registry: Registry, bundle: Bundle, tmp_path: Path
) -> None:
    registry.promote(registered(registry, bundle, tmp_path))
    registered(registry, bundle, tmp_path)
    assert [registry.resolve(name) for name in ("1", "2", "champion", "challenger")] == [1, 2, 1, 2]
    for unknown in ("3", "0", "-1", "1.0", "²", "latest", ""):
        with pytest.raises(RegistryError, match=r"there are: challenger, champion, 1, 2$"):
            registry.resolve(unknown)


def test_a_corrupted_version_is_refused_and_the_champion_stays(
    registry: Registry, bundle: Bundle, tmp_path: Path
) -> None:
    registry.promote(registered(registry, bundle, tmp_path))
    before = (registry.home / "served" / "current.json").read_bytes()
    number = registered(registry, bundle, tmp_path)
    with artifact(registry, number, "heads.npz").open("r+b") as file:
        file.seek(100)
        file.write(b"\0\0\0\0")
    with pytest.raises(BundleError, match=r"heads\.npz: sha256 is"):
        registry.promote(number)
    assert (registry.home / "served" / "current.json").read_bytes() == before
    assert len([f for f in (registry.home / "served").iterdir() if f.is_dir()]) == 1
    assert aliases(registry) == {"champion": 1, "challenger": 2}
    with pytest.raises(RegistryError, match="no earlier champion"):
        registry.rollback()


def test_a_version_whose_files_are_gone_is_refused(registry: Registry, bundle: Bundle, tmp_path: Path) -> None:
    number = registered(registry, bundle, tmp_path)
    shutil.rmtree(artifact(registry, number, "heads.npz").parents[2])
    with pytest.raises((RegistryError, BundleError)):
        registry.promote(number)
    assert not (registry.home / "served").exists()


def test_the_last_three_exports_are_kept(registry: Registry, bundle: Bundle, tmp_path: Path) -> None:
    number = registered(registry, bundle, tmp_path)
    for _ in range(5):
        registry.promote(number)
    exports = {f.name for f in (registry.home / "served").iterdir() if f.is_dir()}
    assert len(exports) == 3
    assert pointed_to(registry.home).folder in exports


def test_promotions_are_kept_in_the_store_not_in_the_process(
    registry: Registry, bundle: Bundle, tmp_path: Path
) -> None:
    for _ in range(2):
        registry.promote(registered(registry, bundle, tmp_path))
    assert Registry(registry.home).rollback() == 1


def test_a_tracking_uri_of_the_users_is_used(
    state: Path, bundle: Bundle, tmp_path: Path, migrated_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.db"
    shutil.copy(migrated_store, other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    place_fake_encoder(state)
    registry = Registry(state)
    registry.promote(registered(registry, bundle, tmp_path))
    assert registry.uri == f"sqlite:///{other}"
    assert len(mlflow.MlflowClient(f"sqlite:///{other}").search_model_versions(f"name='{NAME}'")) == 1
    assert mlflow.MlflowClient(f"sqlite:///{state / 'mlflow.db'}").search_registered_models() == []
    assert pointed_to(state).version == "1"


def test_one_registry_does_not_decide_where_the_next_one_looks(state: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    shutil.copy(state / "mlflow.db", second / "mlflow.db")
    Registry(state)
    assert Registry(second).uri == f"sqlite:///{second / 'mlflow.db'}"
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_the_pointer_names_version_folder_and_digest(registry: Registry, bundle: Bundle, tmp_path: Path) -> None:
    registry.promote(registered(registry, bundle, tmp_path))
    pointer = json.loads((registry.home / "served" / "current.json").read_text())
    assert pointer["folder"].startswith(f"1-{pointer['digest'][:12]}-")
