"""`tierwise evaluate`: a router on a file of outcomes, through the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from serving.classifier.bundle import Bundle, write_bundle
from tests.factories import FakeEncoder, made_up_log
from training.cli import tierwise

WEAK, STRONG = "small", "large"


@pytest.fixture
def router(bundle: Bundle, state: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a bundle; the encoder is the fake one."""
    monkeypatch.setattr("training.evaluate.encoder_for", lambda _home, _identity: FakeEncoder())
    write_bundle(state / "router", bundle)
    return state / "router"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """200 prompts in the split `eval`, 20 in `other`; long ones are hard for the weak model."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for i in range(220):
        hard = bool(rng.random() < 0.5)
        prompt = f"Question t-{i}: " + "prove it carefully, " * (20 if hard else 1)
        for model, chance in ((WEAK, 0.3 if hard else 0.95), (STRONG, 0.95)):
            score = float(rng.random() < chance)
            split = "eval" if i < 200 else "other"
            rows.append({"prompt_id": i, "prompt": prompt, "model": model, "score": score, "split": split, "task": "t"})
    path = tmp_path / "pairs.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(tierwise, ["evaluate", *map(str, arguments)])


def judged(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_a_pair_is_judged_with_intervals_beside_the_baselines(router: Path, table: Path) -> None:
    found = judged("--router", router, "--outcomes", table, "--split", "eval", "--weak", WEAK, "--strong", STRONG)
    assert found["n"] == 200
    assert found["apgr"] > 0.6
    low, high = found["apgr_interval"]
    assert low < found["apgr"] < high
    assert 0 < found["cpt50"] < found["cpt80"] < 1
    assert found["router"].startswith("router@")
    assert len(found["outcomes_digest"]) == 64
    assert set(found["baselines"]) == {
        "cheapest", "strongest", "random", "mixtures", "prompt_length", "question_length", "keyword_rule", "knn",
        "ridge", "matrix_factorisation", "mlp", "oracle",
    }  # fmt: skip
    for figures in found["baselines"].values():
        assert {"apgr", "apgr_interval", "cpt50", "cpt80", "n", "cost_at_quality"} <= figures.keys()
    assert found["baselines"]["random"]["apgr"] == pytest.approx(0.5)
    assert found["baselines"]["cheapest"]["apgr"] is None
    assert found["cost_at_quality"]["0.95"]["relative_cost"] is None  # no prices: unknown is not zero
    assert 0 < found["cost_at_quality"]["0.95"]["top_share"] < 1
    assert found["targets"] == {}


def test_graded_scores_of_a_pair_count_as_they_are(router: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt_id": i, "prompt": f"Question {i}", "model": model, "score": score}
        for i in range(60)
        for model, score in ((WEAK, 0.6), (STRONG, 0.9))
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "graded.parquet")
    found = judged("--router", router, "--outcomes", tmp_path / "graded.parquet", "--weak", WEAK, "--strong", STRONG)
    assert [found["alone"][tier]["quality"] for tier in ("weak", "strong")] == pytest.approx([0.6, 0.9], abs=1e-6)
    assert found["apgr"] == pytest.approx(0.5)  # every prompt gains the same: no ranking can do better


def test_a_log_is_judged_on_the_routers_own_ladder_with_targets_costs_and_slices(
    bundle: Bundle, router: Path, tmp_path: Path
) -> None:
    log = made_up_log(tmp_path / "log.jsonl", 200, seed=3)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    of_team = [row | {"metadata": {"team": "legal" if i < 60 else "sales"}} for i, row in enumerate(rows)]
    log.write_text("".join(json.dumps(row) + "\n" for row in of_team))
    found = judged("--router", router, "--outcomes", log, "--baselines", "random,oracle")
    assert set(found["tiers"]) == {"economy", "standard", "premium"}
    economy = found["tiers"]["economy"]
    assert economy["labels"] == 200
    for name in ("auc", "ece", "brier"):
        low, high = economy[f"{name}_interval"]
        assert low <= economy[name] <= high
    assert set(found["targets"]) == {"0.9", "0.95", "0.98", "0.99"}
    target = found["targets"]["0.95"]
    assert target["share.economy"] + target["share.standard"] + target["share.premium"] == pytest.approx(1)
    assert 0 < target["tier_accuracy"] < 1
    assert [found["targets"][name]["refused"] for name in ("0.9", "0.99")] == [
        next(t.mu is None for t in bundle.manifest.thresholds if t.target == target) for target in (0.9, 0.99)
    ]
    assert found["costs"] == "recorded"
    assert 0 < found["cost_at_quality"]["0.95"]["relative_cost"] < 1
    assert list(found["baselines"]) == ["random", "oracle"]
    assert found["curve"]["quality"][0] < 1
    assert len(found["curve"]["quality"]) == len(found["curve"]["relative_cost"])
    teams = found["slices"]["team"]
    assert {name: part["n"] for name, part in teams.items()} == {"legal": 60, "sales": 140}
    assert {"apgr", "apgr_interval", "retained_quality", "relative_cost", "share.premium"} <= teams["legal"].keys()


def test_prompts_that_the_router_was_made_from_are_left_out(
    bundle: Bundle, router: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bundle.trained_on is not None
    trained_on = type(bundle.trained_on)
    monkeypatch.setattr(trained_on, "has_seen", lambda _self, keys: np.arange(len(keys)) < 20)  # a known number
    found = judged("--router", router, "--outcomes", table, "--weak", WEAK, "--strong", STRONG, "--baselines", "none")
    assert (found["n"], found["seen_in_training"]) == (200, 20)
    monkeypatch.setattr(trained_on, "has_seen", lambda _self, keys: np.ones(len(keys), bool))
    refused = run("--router", router, "--outcomes", table, "--weak", WEAK, "--strong", STRONG)
    assert refused.exit_code == 1
    assert "made from all 220 prompts of these outcomes: judge it on others" in refused.output


@pytest.mark.parametrize("case", ["the top tier is free", "nobody tried the top tier", "nobody tried the middle one"])
def test_what_has_nothing_to_be_divided_by_is_null(router: Path, tmp_path: Path, case: str) -> None:
    log = made_up_log(tmp_path / "log.jsonl", 100, seed=4)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for i, row in enumerate(rows):
        if case == "the top tier is free":
            row["outcomes"][2]["cost_usd"] = 0
        else:
            left = (0, 1) if case == "nobody tried the top tier" else (0, 2)
            row["outcomes"] = [row["outcomes"][left[i % 2]] | {"propensity": 0.5}]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = judged("--router", router, "--outcomes", log, "--baselines", "random")
    assert found["n"] == 100
    if case == "the top tier is free":
        assert found["targets"]["0.95"]["relative_cost"] is None
        assert found["apgr"] is not None
    else:
        empty = "premium" if case == "nobody tried the top tier" else "standard"
        assert found["alone"][empty]["quality"] is None
    assert run("--router", router, "--outcomes", log, "--baselines", "random").exit_code == 0


def test_models_that_are_equally_good_have_no_gap_to_recover(router: Path, tmp_path: Path) -> None:
    # The same three grades in another order: means that differ by rounding only.
    rows = [
        {"prompt_id": i, "prompt": f"Question {i}", "model": model, "score": (0.1, 0.7, 0.4)[(i + shift) % 3]}
        for i in range(60)
        for model, shift in ((WEAK, 0), (STRONG, 1))
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "equal.parquet")
    found = judged("--router", router, "--outcomes", tmp_path / "equal.parquet", "--weak", WEAK, "--strong", STRONG)
    assert found["apgr"] is None


def test_every_look_at_the_same_outcomes_is_counted(router: Path, table: Path) -> None:
    arguments = ("--router", router, "--outcomes", table, "--weak", WEAK, "--strong", STRONG, "--baselines", "none")
    assert [judged(*arguments)["looks"] for _ in range(2)] == [1, 2]
    assert judged(*arguments, "--split", "other")["looks"] == 1


def test_a_training_on_the_same_log_is_a_look_at_its_test_part(
    state: Path, small_training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("evaluate.encoder_for", "pipeline.chosen_encoder"):
        monkeypatch.setattr(f"training.{name}", lambda _home, _wanted: FakeEncoder())
    log = made_up_log(tmp_path / "log.jsonl", 400)
    trained = CliRunner().invoke(tierwise, ["train", "--logs", str(log), "--config", str(small_training)])
    assert trained.exit_code == 0, trained.output
    found = judged("--router", "1", "--outcomes", log, "--baselines", "none")
    assert found["seen_in_training"] == 400 - found["n"]
    assert found["similar_to_training"] == 0
    assert found["looks"] == 2
    runs = MlflowClient(f"sqlite:///{state}/mlflow.db").search_runs(["2"])
    assert runs[0].info.run_name.endswith("on log.jsonl")
    assert runs[0].data.metrics["ranking/apgr"] == pytest.approx(found["apgr"])


def test_outcomes_of_one_tier_with_propensities_are_judged_by_inverse_propensity(router: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    lines = []
    for i in range(300):
        tier = ("economy", "standard", "premium")[rng.integers(3)]
        acceptable = bool(rng.random() < {"economy": 0.5, "standard": 0.7, "premium": 0.9}[tier])
        lines.append(
            json.dumps(
                {"id": i, "prompt": f"Question {i}", "tier": tier, "acceptable": acceptable, "propensity": 1 / 3}
            )
        )
    log = tmp_path / "explored.jsonl"
    log.write_text("\n".join(lines))
    found = judged("--router", router, "--outcomes", log)
    assert found["n"] == 300
    # A hundred answers a tier, standard error .03 and .05: a mean over what was tried, never above 1.
    assert found["alone"]["premium"]["quality"] == pytest.approx(0.9, abs=0.1)
    assert found["alone"]["economy"]["quality"] == pytest.approx(0.5, abs=0.15)
    assert max(found["targets"]["0.9"]["retained_quality_interval"]) < 1.3
    assert "oracle" in found["baselines_missing"]


def test_a_log_that_shows_only_the_tier_that_answered_gets_no_curve_but_tier_figures(
    router: Path, tmp_path: Path
) -> None:
    lines = [
        json.dumps({"id": i, "prompt": f"Question {i}", "tier": "economy", "acceptable": i % 3 > 0}) for i in range(60)
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(lines))
    found = judged("--router", router, "--outcomes", log)
    assert (found["n"], found["n_labelled"]) == (0, 60)
    assert found["apgr"] is None
    assert found["tiers"]["economy"]["labels"] == 60
    text = run("--router", router, "--outcomes", log)
    assert "0 prompts with evidence for every tier" in text.stdout


def test_the_text_says_what_the_json_says(router: Path, table: Path) -> None:
    result = run("--router", router, "--outcomes", table, "--weak", WEAK, "--strong", STRONG)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("router router@")
    assert "220 prompts with evidence for every tier" in lines[1]
    assert any(line.startswith("oracle") for line in lines)
    verdict = lines.index("the router ranks prompts (by APGR, with 95 % confidence)")
    assert lines[verdict + 1].startswith("  better than random")
    assert max(map(len, lines)) < 140


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--weak", "small"], 2, "--weak and --strong go together"),
        (["--weak", "small", "--strong", "small"], 2, "--weak and --strong are the same model, 'small'"),
        (
            ["--weak", "small", "--strong", "huge"],
            1,
            "no outcome of the model 'huge'; beside the pair it has large",
        ),
        (["--weak", "tiny", "--strong", "huge"], 1, "no model of the table is on the ladder; it has large, small"),
        (["--split", "test"], 1, "no request is of the split 'test'; there are: eval, other"),
        (["--baselines", "speed"], 2, "'speed' is not a baseline"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(
    router: Path, table: Path, arguments: list[str], status: int, message: str
) -> None:
    result = run("--router", router, "--outcomes", table, *arguments)
    assert (result.exit_code, message in result.output) == (status, True), result.output


@pytest.mark.usefixtures("router")
def test_a_router_that_does_not_exist_is_refused_with_those_that_do(table: Path) -> None:
    result = run("--router", "7", "--outcomes", table)
    assert result.exit_code == 1
    assert "there is no router '7'" in result.output


def test_a_ladder_with_an_unknown_tier_is_refused(router: Path, table: Path, tmp_path: Path) -> None:
    ladder = tmp_path / "ladder.json"
    ladder.write_text(json.dumps({"tiers": [{"name": "a", "models": [WEAK]}, {"name": "premium", "models": [STRONG]}]}))
    result = run("--router", router, "--outcomes", table, "--ladder", ladder)
    assert result.exit_code == 1
    assert "has the tier 'a', which the router does not know; it has economy, standard, premium" in result.output
