"""A training run from log to promotion: `tierwise train` with a fake encoder and a real MLflow store."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from click.testing import CliRunner, Result

from serving.classifier.bundle import read_bundle
from serving.routing.promoted import pointed_to
from tests.factories import FakeEncoder, made_up_log, place_fake_encoder
from training.cli import tierwise
from training.config import read_config
from training.data import log_data
from training.fitting.router import GOLDEN_PROMPTS
from training.pipeline import train
from training.registry import Registry, Version
from training.tracking import MU_STEPS, logged_curve

# One tree that hardly moves: every prompt gets about the same probability.
BLUNT = """
[training.heads]
components = 1
trees = 1
learning_rate = 0.001
landmarks = 10
ridge = 1e6
token_trees = 1
"""


@dataclass(frozen=True)
class Trainer:
    """`tierwise` in this process, on one state folder."""

    home: Path
    log: Path
    config: Path
    encoder: FakeEncoder

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(tierwise, arguments)

    def train(self, *arguments: str, log: Path | None = None, config: Path | None = None) -> Result:
        return self.run("train", "--logs", str(log or self.log), "--config", str(config or self.config), *arguments)

    def trained(self, *arguments: str, log: Path | None = None, config: Path | None = None) -> dict[str, Any]:
        """What `--json` gave of a run that must succeed."""
        result = self.train("--json", *arguments, log=log, config=config)
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.stdout))

    def versions(self) -> dict[int, Version]:
        return {version.number: version for version in Registry(self.home).versions()}


def trainer(home: Path, config: Path, patch: pytest.MonkeyPatch) -> Trainer:
    encoder = FakeEncoder()
    # The real one takes milliseconds a text and has tests of its own; nothing else of the run is replaced.
    patch.setattr("training.pipeline.chosen_encoder", lambda _home, _setting: encoder)
    place_fake_encoder(home)
    patch.setenv("TIERWISE_HOME", str(home))
    log = home.parent / "log.jsonl"
    if not log.exists():
        made_up_log(log)
    return Trainer(home, log, config, encoder)


@pytest.fixture(scope="module")
def first(
    tmp_path_factory: pytest.TempPathFactory, migrated_store: Path, small_training: Path
) -> tuple[Path, dict[str, Any], str]:
    """A state folder after one `train --promote`, what that printed, and what it said. To be copied."""
    home = tmp_path_factory.mktemp("first") / "state"
    home.mkdir()
    shutil.copy(migrated_store, home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home.parent)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = trainer(home, small_training, patch).train("--promote", "--json")
    assert result.exit_code == 0, result.output
    return home, json.loads(result.stdout), result.stderr


@pytest.fixture
def once(
    first: tuple[Path, dict[str, Any], str], state: Path, small_training: Path, monkeypatch: pytest.MonkeyPatch
) -> Trainer:
    """A trainer whose first version is the champion."""
    shutil.rmtree(state)
    shutil.copytree(first[0], state)
    shutil.copy(first[0].parent / "log.jsonl", state.parent)
    return trainer(state, small_training, monkeypatch)


@pytest.fixture
def never(state: Path, small_training: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """A trainer without any version."""
    return trainer(state, small_training, monkeypatch)


@pytest.fixture
def blunt(tmp_path: Path) -> Path:
    path = tmp_path / "blunt.toml"
    path.write_text(BLUNT)
    return path


def changed(log: Path, change: Callable[[int, dict[str, Any]], dict[str, Any] | str]) -> Path:
    """A copy of the log with each row as `change` gives it for its number and the row."""
    rows = [change(i, json.loads(line)) for i, line in enumerate(log.read_text().splitlines())]
    path = log.with_name("changed.jsonl")
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_the_first_version_is_promoted_and_its_bundle_is_where_the_service_looks(once: Trainer) -> None:
    (version,) = once.versions().values()
    assert (version.number, version.aliases) == (1, ("champion",))
    assert "tierwise.promoted_by_force" not in version.tags
    pointer = pointed_to(once.home)
    assert pointer.version == "1"
    bundle = read_bundle(once.home / "served" / pointer.folder)
    assert bundle.digest == pointer.digest
    assert [tier.models for tier in bundle.tiers] == [("small",), ("middle",), ("large",)]


def test_a_run_has_the_whole_config_and_what_it_was_trained_on(once: Trainer) -> None:
    run = mlflow.get_run(once.versions()[1].run_id)
    config = read_config(once.config)
    assert run.data.params["heads.trees"] == str(config.heads.trees) == "30"
    expected = {
        *(f"heads.{name}" for name in type(config.heads).model_fields),
        *(f"split.{name}" for name in type(config.split).model_fields),
        *(f"feedback_weight.{name}" for name in type(config.feedback_weight).model_fields),
        *(set(type(config).model_fields) - {"heads", "split", "feedback_weight"}),
    }
    assert expected <= run.data.params.keys()
    assert run.data.params["ladder"] == "economy < standard < premium"
    assert run.data.params["prompts"] == "600"
    assert run.info.run_name == "version 1: log.jsonl"
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?|unknown", run.data.tags["git_commit"])


def test_the_data_set_is_logged_with_the_digest_that_run_version_and_bundle_give(once: Trainer) -> None:
    version = once.versions()[1]
    run = mlflow.get_run(version.run_id)
    digest = run.data.tags["dataset_digest"]
    assert len(digest) == 64
    assert version.tags["dataset_digest"] == digest
    assert read_bundle(once.home / "served" / pointed_to(once.home).folder).manifest.dataset_digest == digest
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("log.jsonl", digest[:32])


def test_a_run_has_metrics_of_every_tier_and_a_curve_in_steps(once: Trainer) -> None:
    run = mlflow.get_run(once.versions()[1].run_id)
    metrics = run.data.metrics
    for tier in ("economy", "standard", "premium"):
        assert {f"tier/{name}.{tier}" for name in ("auc", "brier", "ece", "labels", "acceptable")} <= metrics.keys()
    parts = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/split.json"))["parts"]
    assert sum(parts.values()) == 600
    # Every prompt of the log has an outcome of every tier.
    assert metrics["tier/labels.economy"] == metrics["support/judged_prompts"] == parts["test"]
    curve = mlflow.MlflowClient().get_metric_history(run.info.run_id, "curve/quality")
    assert [point.step for point in curve] == list(range(len(MU_STEPS)))
    shares = [
        mlflow.MlflowClient().get_metric_history(run.info.run_id, f"curve/share.{tier}")
        for tier in ("economy", "standard", "premium")
    ]
    assert [sum(point.value for point in at_mu) for at_mu in zip(*shares, strict=True)] == pytest.approx([1] * 62)
    assert shares[0][-1].value == 1  # at the largest μ everything goes to the cheapest tier
    at_cost = logged_curve(Registry(once.home), run.info.run_id, "quality_at_cost")
    assert at_cost.index.max() <= 1000
    assert at_cost.is_monotonic_increasing
    assert at_cost.iloc[-1] >= 0.99  # for the whole of the top tier's cost at least its quality


def test_a_logged_curve_comes_back_by_step_and_is_empty_where_there_is_none(once: Trainer) -> None:
    registry, run_id = Registry(once.home), once.versions()[1].run_id
    cost = logged_curve(registry, run_id, "cost")
    assert list(cost.index) == list(range(len(MU_STEPS)))
    assert cost.iloc[0] > cost.iloc[-1]
    assert logged_curve(registry, run_id, "no such curve").empty


def test_a_run_has_plots_and_the_bundle_that_was_registered(once: Trainer) -> None:
    run_id = once.versions()[1].run_id
    client = mlflow.MlflowClient()
    assert {f.path for f in client.list_artifacts(run_id)} == {"bundle", "model_card.md", "plots", "split.json"}
    assert {f.path for f in client.list_artifacts(run_id, "plots")} == {
        "plots/quality_cost.png",
        "plots/reliability.png",
        "plots/shares.png",
    }
    assert {f.path for f in client.list_artifacts(run_id, "bundle")} == {
        "bundle/bundle.json", "bundle/calibration.npz", "bundle/golden.jsonl", "bundle/heads.npz",
        "bundle/trained_on.npz",
    }  # fmt: skip
    assert client.get_model_version("tierwise-router", "1").run_id == run_id


def test_a_run_prints_its_version_its_metrics_and_says_the_labels_of_each_tier(
    first: tuple[Path, dict[str, Any], str],
) -> None:
    _, printed, said = first
    assert (printed["version"], printed["promoted"]) == (1, True)
    assert printed["tiers"] == ["economy", "standard", "premium"]
    assert [threshold["target"] for threshold in printed["thresholds"]] == [0.9, 0.95, 0.98, 0.99]
    assert printed["metrics"]["support/judged_prompts"] > 0
    assert "log.jsonl: 600 read, 0 rejected, 0 without an outcome" in said
    for tier in ("economy", "standard", "premium"):
        assert f"  {tier}: 600 labelled prompts, " in said


def test_without_promote_a_version_is_only_registered(never: Trainer) -> None:
    assert never.trained()["promoted"] is False
    assert never.versions()[1].aliases == ("challenger",)
    assert not (never.home / "served").exists()


def test_without_promote_a_version_is_compared_with_the_champion_all_the_same(once: Trainer) -> None:
    data = log_data((once.log,), once.home, say=lambda _: None)
    trained = train(data, once.home, read_config(once.config), promote=False, force=False, say=lambda _: None)
    assert not trained.promoted
    assert trained.comparison is not None
    assert trained.comparison.difference == 0  # the same log, the same settings
    assert once.versions()[1].aliases == ("champion",)


def test_an_equal_version_is_promoted(once: Trainer) -> None:
    result = once.train("--promote", "--json")
    assert json.loads(result.stdout)["promoted"] is True
    assert "Brier score +0.0000 (95 % interval +0.0000 to +0.0000)" in result.stderr
    assert once.versions()[2].aliases == ("champion",)
    assert pointed_to(once.home).version == "2"


def test_a_worse_version_is_not_promoted_and_says_so(once: Trainer, blunt: Path) -> None:
    before = (once.home / "served" / "current.json").read_bytes()
    result = once.train("--promote", "--json", config=blunt)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["promoted"] is False
    assert "version 2 is not promoted: it is worse than the champion; --force promotes it all the same" in result.stderr
    assert {number: version.aliases for number, version in once.versions().items()} == {
        1: ("champion",),
        2: ("challenger",),
    }
    assert (once.home / "served" / "current.json").read_bytes() == before


def test_force_promotes_a_worse_version_and_is_recorded_and_a_better_one_needs_none(once: Trainer, blunt: Path) -> None:
    assert once.trained("--promote", "--force", config=blunt)["promoted"] is True
    assert once.trained("--promote", "--force")["promoted"] is True
    forced = [number for number, version in once.versions().items() if "tierwise.promoted_by_force" in version.tags]
    assert forced == [2]
    assert once.versions()[3].aliases == ("champion",)


def test_other_tiers_cannot_be_compared_and_are_not_promoted_without_force(once: Trainer) -> None:
    def without_standard(_: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"outcomes": [outcome for outcome in row["outcomes"] if outcome["tier"] != "standard"]}

    log = changed(once.log, without_standard)
    result = once.train("--promote", "--json", log=log)
    assert json.loads(result.stdout)["promoted"] is False
    assert "version 2 is not promoted: it cannot be compared with the champion" in result.stderr
    assert once.trained("--promote", "--force", log=log)["promoted"] is True


def test_a_champion_that_cannot_be_read_any_more_does_not_end_the_run(once: Trainer) -> None:
    champion = once.trained("--promote")  # version 2, whose artifacts are this test's own to damage
    folder = Path(mlflow.get_run(champion["run_id"]).info.artifact_uri.removeprefix("file://"))
    (folder / "bundle" / "bundle.json").write_text("{}")
    result = once.train("--promote", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["promoted"] is False
    assert (
        "version 3 is not promoted: it cannot be compared with the champion (the champion cannot be read: "
        in result.stderr
    )
    assert once.trained("--promote", "--force")["promoted"] is True


def test_a_second_run_embeds_nothing_again(never: Trainer) -> None:
    never.trained()
    assert never.encoder.calls == 600 + len(GOLDEN_PROMPTS)
    never.trained()
    assert never.encoder.calls == 600 + 2 * len(GOLDEN_PROMPTS)
    longer = changed(never.log, lambda i, row: row if i else row | {"prompt": "A prompt that is new."})
    never.trained(log=longer)
    assert never.encoder.calls == 601 + 3 * len(GOLDEN_PROMPTS)


def test_the_same_outcomes_in_another_order_give_the_same_digest_and_the_same_parts(once: Trainer) -> None:
    lines = once.log.read_text().splitlines(keepends=True)
    reverse = once.log.with_name("reverse.jsonl")
    reverse.write_text("".join(reversed(lines)))
    once.trained(log=reverse)
    one, other = (version.tags["dataset_digest"] for version in once.versions().values())
    assert one == other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, o: o if i < 20 else o | {"acceptable": None}, "tier standard: 20 labelled prompts in all"),
        (
            lambda _, o: o | {"acceptable": True},
            "tier standard: 600 labelled prompts in all, 600 acceptable",
        ),
        (
            lambda _, o: o | {"acceptable": False},
            "tier standard: 600 labelled prompts in all, 0 acceptable",
        ),
        (lambda _, o: o | {"acceptable": None}, "tier standard: 0 labelled prompts in all"),
    ],
    ids=["too few", "all acceptable", "none acceptable", "no labels"],
)
def test_labels_that_carry_no_router_end_the_run_and_name_the_tier(
    never: Trainer, change: Callable[[int, dict[str, Any]], dict[str, Any]], message: str
) -> None:
    def row(i: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"outcomes": [change(i, o) if o["tier"] == "standard" else o for o in row["outcomes"]]}

    result = never.train("--promote", log=changed(never.log, row))
    assert result.exit_code == 1
    assert f"Error: {message}" in result.stderr
    assert never.versions() == {}
    assert not (never.home / "served").exists()


def test_a_log_without_any_outcome_ends_the_run(never: Trainer) -> None:
    def row(_: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"outcomes": [outcome | {"acceptable": None} for outcome in row["outcomes"]]}

    result = never.train(log=changed(never.log, row))
    assert result.exit_code == 1
    assert "Error: no request carries an outcome of a tier on the ladder" in result.stderr


def broken(log: Path) -> Path:
    return changed(log, lambda i, row: '{"id": "r-17", "prompt": ' if i == 16 else row)


def test_a_bad_line_is_reported_and_set_aside_and_the_run_goes_on(never: Trainer, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    result = never.train("--json", "--rejects", str(rejects), log=broken(never.log))
    assert result.exit_code == 0
    assert json.loads(result.stdout)["version"] == 1
    assert "599 read, 1 rejected" in result.stderr
    assert "changed.jsonl, line 17: is not JSON" in result.stderr
    (reject,) = map(json.loads, rejects.read_text().splitlines())
    assert (reject["line"], reject["row"]) == (17, '{"id": "r-17", "prompt": ')


def test_without_a_place_of_the_users_rejects_stay_in_the_state_folder(never: Trainer) -> None:
    result = never.train(log=broken(never.log))
    assert result.exit_code == 0
    (path,) = (never.home / "rejects").iterdir()
    assert f"rejects are in {path}" in result.stderr
    assert path.stat().st_mode & 0o077 == 0


def test_with_strict_a_bad_line_ends_the_run(never: Trainer) -> None:
    result = never.train("--strict", log=broken(never.log))
    assert result.exit_code == 1
    assert "changed.jsonl, line 17: is not JSON" in result.stderr
    assert never.versions() == {}


def test_a_tracking_uri_of_the_users_gets_the_run(
    never: Trainer, tmp_path: Path, migrated_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.db"
    shutil.copy(migrated_store, other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    printed = never.trained("--promote")
    client = mlflow.MlflowClient(f"sqlite:///{other}")
    assert client.get_model_version("tierwise-router", "1").run_id == printed["run_id"]
    assert pointed_to(never.home).version == "1"
    assert mlflow.MlflowClient(f"sqlite:///{never.home / 'mlflow.db'}").search_registered_models() == []


def test_several_logs_are_one_data_set(never: Trainer, tmp_path: Path) -> None:
    more = made_up_log(tmp_path / "more.jsonl", 100, seed=1)
    result = never.run("train", "--logs", str(never.log), str(more), "--config", str(never.config))
    assert result.exit_code == 0, result.output
    assert "700 read" in result.stderr
    assert mlflow.get_run(never.versions()[1].run_id).data.params["data"] == "log.jsonl + more.jsonl"


def test_the_registered_bundle_is_the_one_that_was_evaluated(once: Trainer) -> None:
    bundle = read_bundle(once.home / "served" / pointed_to(once.home).folder)
    logged = mlflow.get_run(once.versions()[1].run_id).data.metrics
    assert bundle.manifest.metrics == {name: logged[name] for name in bundle.manifest.metrics}


def test_a_version_without_held_out_prompts_is_trained_and_says_so(never: Trainer, tmp_path: Path) -> None:
    config = tmp_path / "no_test.toml"
    small = never.config.read_text()
    config.write_text(small + "[training.split]\nfit = 0.8\nthreshold = 0.199999\ntest = 0.000001\n")
    metrics = never.trained(config=config)["metrics"]
    assert metrics["support/judged_prompts"] == 0
    assert metrics["tier/labels.economy"] == 0
    assert "ranking/apgr" not in metrics


def test_a_log_without_token_counts_or_prices_is_trained_on(never: Trainer) -> None:
    def bare(_: int, row: dict[str, Any]) -> dict[str, Any]:
        row["outcomes"] = [
            {key: outcome[key] for key in ("tier", "model", "acceptable")} for outcome in row["outcomes"]
        ]
        return row

    assert never.trained(log=changed(never.log, bare))["version"] == 1
