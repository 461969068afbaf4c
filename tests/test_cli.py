"""The `tierwise` command: exit statuses, what goes to stdout, and what a wrong word is told."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from serving.ledger.sqlite.store import SqliteLedger
from tests.factories import made_up_log
from tests.ledger_events import event
from tests.server import environment
from training.cli import tierwise


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(tierwise, arguments, input=stdin)


def failed(result: Result, status: int = 1) -> str:
    """What a failing command said, on stderr only."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


def one_object(result: Result) -> dict[str, Any]:
    """The JSON object that is all of stdout."""
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    return dict(json.loads(result.stdout))


@pytest.fixture
def trained(trained_home: Path, state: Path) -> Path:
    """A state folder with the real encoder and two versions, the first promoted."""
    for folder in ("served", "encoders"):
        shutil.copytree(trained_home / folder, state / folder)
    shutil.copy(trained_home / "mlflow.db", state / "mlflow.db")
    return state


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"], ["train", "--logs"], ["train", "--logs", "missing.jsonl"], ["train", "--promote", "yes"],
        ["train", "--force"], ["promote"], ["promote", "1", "2"], ["route"], ["routers", "x"], ["rollback", "1"],
        ["serve", "--port", "0"], ["serve", "--port", "70000"], ["serve", "--port", "x"], ["--nonsense"],
        ["route", "hello", "--policy", "cheap"], ["route", "hello", "--policy", "share:2"],
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.usefixtures("state")
def test_wrong_arguments_end_with_status_2(arguments: Sequence[str]) -> None:
    assert "Error: " in failed(run(*arguments), 2)


@pytest.mark.parametrize(
    "command", ["train", "routers", "promote", "rollback", "route", "serve", "check", "bento", "dataset", "encoder"]
)
def test_every_command_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")


def test_the_version_is_told() -> None:
    assert run("--version").exit_code == 0


@pytest.mark.usefixtures("state")
def test_routers_with_none_says_what_to_run_and_is_no_failure() -> None:
    result = run("routers")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no router yet in " in result.stderr
    assert "; run: tierwise train" in result.stderr
    assert one_object(run("routers", "--json")) == {"routers": []}


@pytest.mark.usefixtures("state")
def test_what_cannot_be_promoted_ends_with_status_1_and_what_there_is() -> None:
    assert "Error: there is no router '2'; there are: none yet; run: tierwise train" in failed(run("promote", "2"))
    assert "Error: no router is registered yet; run: tierwise train" in failed(run("rollback"))


@pytest.mark.usefixtures("trained")
def test_an_unknown_version_is_refused_with_those_there_are() -> None:
    assert "there is no router '9'; there are: challenger, champion, 1, 2" in failed(run("promote", "9"))


@pytest.mark.usefixtures("trained")
def test_routers_are_listed_newest_first_with_their_figures() -> None:
    lines = run("routers").stdout.splitlines()
    figures = ["quality retained at .95", "relative cost", "APGR", "prompts judged"]
    assert re.split(" {2,}", lines[0]) == ["version", "alias", "trained", "on", *figures]
    assert "log.jsonl" in lines[1]
    assert [line.split()[:2] for line in lines[1:3]] == [["2", "challenger"], ["1", "champion"]]
    listed = one_object(run("routers", "--json"))["routers"]
    assert [(router["version"], router["aliases"]) for router in listed] == [(2, ["challenger"]), (1, ["champion"])]
    assert {"run_id", "created_ms", "metrics", "tags"} <= listed[0].keys()


@pytest.mark.usefixtures("trained")
def test_promote_and_rollback_say_who_is_the_champion() -> None:
    assert run("promote", "2").stdout == "version 2 is the champion\n"
    assert run("rollback").stdout == "version 1 is the champion again\n"
    assert "Error: there is no earlier champion to go back to" in failed(run("rollback"))


@pytest.mark.usefixtures("trained")
def test_promote_says_when_the_logs_do_not_carry_the_target_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_POLICY", "quality:0.99")  # which 400 prompts do not carry
    result = run("promote", "2")
    assert "its logs do not carry the target 0.99" in result.stderr
    assert "value:USD" in result.stderr


@pytest.mark.usefixtures("trained")
def test_promote_refuses_a_version_that_the_service_would_refuse() -> None:
    Path("tierwise.toml").write_text('[[pins]]\nteam = "search"\ntier = "gold"\n')
    assert "pins: there is no tier 'gold' to pin to" in failed(run("promote", "2"))
    Path("tierwise.toml").unlink()
    run("promote", "2")
    Path("tierwise.toml").write_text('[[pins]]\nteam = "search"\ntier = "gold"\n')
    assert "pins: there is no tier 'gold' to pin to" in failed(run("rollback"))
    assert run("routers").stdout.splitlines()[1].split()[:2] == ["2", "champion"]
    Path("tierwise.toml").unlink()
    run("rollback")
    assert run("routers").stdout.splitlines()[2].split()[:2] == ["1", "champion"]


@pytest.mark.usefixtures("trained")
def test_promote_takes_an_alias() -> None:
    assert run("promote", "challenger").stdout == "version 2 is the champion\n"


@pytest.mark.usefixtures("trained")
def test_a_decision_is_one_json_object_and_names_the_promoted_version() -> None:
    result = run("route", "What is the capital of Portugal?")
    decision = one_object(result)
    assert result.stderr == ""
    assert decision["object"] == "routing.decision"
    assert decision["router"].startswith("1@")
    assert decision["reason"] in ("policy", "target_refused")


@pytest.mark.usefixtures("trained")
def test_a_decision_can_be_explained() -> None:
    explanation = json.loads(run("route", "What is the capital of Portugal?", "--explain").stdout)["explanation"]
    assert [score["tier"] for score in explanation["scores"]] == ["economy", "standard", "premium"]
    assert len(explanation["nearest"]) == 5
    assert all(neighbour["id"].startswith("0-") for neighbour in explanation["nearest"])  # ids of the log


@pytest.mark.usefixtures("trained")
def test_a_dash_reads_the_prompt_from_stdin() -> None:
    text = "Prüfe das sorgfältig: 7 × 8?\nUnd dann?"
    given, read = (one_object(result) for result in (run("route", text), run("route", "-", stdin=text)))
    assert given["probabilities"] == read["probabilities"]


@pytest.mark.usefixtures("trained")
def test_the_policy_of_a_decision_can_be_chosen() -> None:
    text = "Question: " + "prove it carefully, " * 6
    assert one_object(run("route", text, "--policy", "value:0.0000001"))["tier"] == "economy"
    assert one_object(run("route", text, "--policy", "value:100"))["tier"] != "economy"


@pytest.mark.usefixtures("trained")
def test_a_decision_for_a_pinned_team_names_its_tier() -> None:
    Path("tierwise.toml").write_text('[[pins]]\nteam = "search"\ntier = "standard"\n')
    pinned = one_object(run("route", "hello", "--team", "search"))
    assert (pinned["tier"], pinned["reason"]) == ("standard", "pinned")
    assert one_object(run("route", "hello", "--team", "sales"))["reason"] in ("policy", "target_refused")


@pytest.mark.usefixtures("trained")
def test_a_decision_leaves_no_trace_of_a_session_and_never_explores(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERWISE_EXPLORATION", "0.99")
    monkeypatch.setenv("TIERWISE_SESSION_TTL_S", "60")
    decisions = [one_object(run("route", "hello")) for _ in range(4)]
    assert {decision["propensity"] for decision in decisions} == {1.0}
    assert not (trained / "sessions.db").exists()


@pytest.mark.usefixtures("state")
def test_without_a_promoted_router_a_decision_is_a_fallback_and_stderr_says_why() -> None:
    result = run("route", "hello")
    assert one_object(result)["reason"] == "fallback"
    assert "no router is promoted; run: tierwise train --promote" in result.stderr


@pytest.mark.parametrize("stdin", ["", "  \n", "a\0b", b"\xff\xfe"], ids=["empty", "blank", "NUL", "not UTF-8"])
@pytest.mark.usefixtures("state")
def test_a_prompt_that_is_no_text_is_refused(stdin: str | bytes) -> None:
    assert "Error: prompt: " in failed(run("route", "-", stdin=stdin))


@pytest.mark.parametrize("command", [["routers"], ["route", "hello"], ["serve"], ["bento"], ["train"]], ids=" ".join)
@pytest.mark.usefixtures("state")
def test_an_unknown_variable_is_named(command: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_POLCIY", "quality:0.9")
    said = failed(run(*command))
    assert "Error: TIERWISE_POLCIY is not a setting; known: TIERWISE_" in said
    assert " TIERWISE_EXPLAIN, TIERWISE_EXPLORATION, " in said


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("TIERWISE_PORT", "x", "port"), ("TIERWISE_WORKERS", "0", "workers"), ("TIERWISE_TIERS", "[", "tiers"),
        ("TIERWISE_MEMO_SIZE", "-1", "memo_size"), ("TIERWISE_POLICY", "cheap", "policy"),
        ("TIERWISE_EXPLORATION", "1", "exploration"), ("TIERWISE_MAX_TOP_SHARE", "1.5", "max_top_share"),
        ("TIERWISE_SESSION_TTL_S", "0", "session_ttl_s"), ("TIERWISE_PINS", '[{"tier": "economy"}]', "pins.0"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("state")
def test_a_wrong_value_of_a_variable_is_named(name: str, value: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert key in failed(run("route", "hello"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("polcy = 'quality:0.9'", "polcy: is not a setting; did you mean policy?"),
        ("port = 'x'", "port: "),
        ("[[tiers]]\nname = 'economy'\nmodels = ['a']\nprice = 3", "tiers.0.price: is not a setting; see docs/"),
        ("port = ", "tierwise.toml): "),
    ],
)
@pytest.mark.usefixtures("state")
def test_a_wrong_key_of_the_settings_file_is_named(text: str, message: str) -> None:
    Path("tierwise.toml").write_text(text)
    assert message in failed(run("route", "hello"))


@pytest.mark.usefixtures("state")
def test_a_variable_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tierwise.toml").write_text("policy = 'cheap'")
    monkeypatch.setenv("TIERWISE_POLICY", "quality:0.9")
    assert run("route", "hello").exit_code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nsead = 1", "training.sead: Extra inputs are not permitted"),
        ("[training.split]\nfit = 0.9", "training.split: "),
        ("[training", "not TOML"),
    ],
)
def test_a_wrong_key_of_a_training_file_is_named(state: Path, text: str, message: str) -> None:
    log = made_up_log(state / "log.jsonl", 5)
    config = state / "config.toml"
    config.write_text(text)
    assert message in failed(run("train", "--logs", str(log), "--config", str(config)))


def test_a_log_of_no_known_format_is_refused(state: Path) -> None:
    log = state / "log.txt"
    log.write_text("hello")
    assert "must be named .jsonl" in failed(run("train", "--logs", str(log)))


@pytest.mark.parametrize(("module", "command"), [("mlflow", "routers"), ("sklearn", "train")])
def test_a_missing_library_gives_the_line_that_installs_it(state: Path, module: str, command: str) -> None:
    log = made_up_log(state / "log.jsonl", 60)
    arguments = [command, "--logs", str(log)] if command == "train" else [command]
    # In a process of its own: here everything is imported already.
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv[0] = 'tierwise'; from training.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(TIERWISE_HOME=str(state)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert f"{module} is not installed, and this command needs it: pip install 'tierwise[training]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_decision_needs_no_library_of_training(trained: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('sklearn', 'scipy', 'torch', 'pandas', 'mlflow', 'onnx', 'pyarrow', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "from training.cli import main\n"
        "main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "route", "hello"],
        env=environment(TIERWISE_HOME=str(trained)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["router"].startswith("1@")


def test_logs_are_taken_one_after_the_other(state: Path) -> None:
    logs = [made_up_log(state / f"{name}.jsonl", 3, seed=seed) for seed, name in enumerate("abc")]
    result = run("train", "--logs", *map(str, logs))
    said = failed(result)  # nine prompts carry no router; that all were read is what counts
    assert "9 read, 0 rejected" in said
    assert "tier economy: 9 labelled prompts in all" in said


@pytest.mark.usefixtures("trained")
def test_serve_refuses_a_target_that_the_promoted_router_was_not_calibrated_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIERWISE_POLICY", "quality:0.97")
    assert "not calibrated for the target 0.97; it has 0.9, 0.95, 0.98, 0.99" in failed(run("serve"))


@pytest.mark.usefixtures("trained")
def test_serve_refuses_a_pin_to_a_tier_that_the_promoted_router_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_PINS", '[{"team": "search", "tier": "gold"}]')
    assert "pins: there is no tier 'gold' to pin to; there are economy, standard, premium" in failed(run("serve"))


@pytest.mark.usefixtures("state")
def test_serve_refuses_a_pin_to_a_tier_that_the_settings_have_not() -> None:
    tiers = "".join(f'[[tiers]]\nname = "{name}"\nmodels = ["m"]\n' for name in ("low", "high"))
    Path("tierwise.toml").write_text(f'{tiers}[[pins]]\nteam = "search"\ntier = "gold"\n')
    assert "there is no tier 'gold' to pin to; there are low, high" in failed(run("serve"))


@pytest.mark.usefixtures("trained")
def test_serve_refuses_an_occupied_port_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}" in failed(run("serve", "--port", str(port)))


def recorded(state: Path) -> None:
    ledger = SqliteLedger(state / "ledger.db")
    now = datetime.now(UTC)
    ledger.record([event("1", time=now), event("2", time=now, team=None, cost=None),
                   event("3", time=now, tier="premium", saved={"routing": 5 * 10**11})]).result()  # fmt: skip
    ledger.close()


def test_a_report_says_what_was_spent_and_what_is_unknown(state: Path) -> None:
    recorded(state)
    text = run("report").stdout
    assert "spent $0.002000 on 3 requests, $0.001000 each" in text
    assert "unknown, and in no sum: the cost of 1 of 3 events, the tokens of 0" in text
    assert "saved $0.5000 net: routing $0.5000; less $0.00 spent on saving" in text
    assert re.search(r"^premium +\$0.001000 +50.0% +1$", text, re.MULTILINE)
    assert re.search(r"^– +unknown +– +1 +1$", text, re.MULTILINE)  # the call of no team


def test_a_report_is_one_json_object_or_csv(state: Path) -> None:
    recorded(state)
    found = one_object(run("report", "--json", "--days", "1"))
    assert (found["period_days"], found["total_requests"]) == (1, 3)
    lines = run("report", "--csv", "--by", "tier").stdout.splitlines()
    assert lines == [
        "tier,cost_usd,requests,unpriced_events,input_tokens,output_tokens",
        "economy,0.001000000007,2,1,200,40",
        "premium,0.001000000007,1,0,100,20",
    ]
    assert "take one" in failed(run("report", "--csv", "--json"), 2)


@pytest.mark.usefixtures("state")
def test_what_is_forgotten_is_counted(state: Path) -> None:
    ledger = SqliteLedger(state / "ledger.db")
    ledger.record([event("a", user="ann"), event("b", user="ann"), event("c", user="bob")]).result()
    ledger.close()
    assert run("forget", "--user", "ann").stdout == (
        "deleted 0 decisions and 0 lines of feedback; took the names from 2 events\n"
    )
    assert "took the names from 0 events" in run("forget", "--user", "ann").stdout
    assert "one of --request" in failed(run("forget", "--user", "ann", "--session", "s"), 2)


def test_without_a_ledger_there_is_nothing_to_forget_or_to_learn_from(state: Path) -> None:
    assert "there is no ledger" in failed(run("forget", "--session", "s"))
    assert "there is no ledger yet" in failed(run("train", "--logs", "ledger"))
    SqliteLedger(state / "ledger.db").close()
    assert "set tiers in tierwise.toml" in failed(run("train", "--logs", "ledger"))
    assert "stands alone" in failed(run("train", "--logs", "ledger", "--strict"), 2)


def test_a_ledger_without_feedback_is_told_apart_from_one_with(trained: Path) -> None:
    SqliteLedger(trained / "ledger.db").close()
    assert "no decision in the ledger can be learned from: there is none" in failed(run("train", "--logs", "ledger"))


def test_a_report_makes_no_ledger_and_one_of_nothing_says_so(state: Path) -> None:
    assert f"{state / 'ledger.db'}: there is no ledger" in failed(run("report"))
    assert not (state / "ledger.db").exists()
    SqliteLedger(state / "ledger.db").close()
    assert "nothing was recorded" in run("report").stdout
    assert one_object(run("report", "--json"))["avg_cost_per_request"] is None


@pytest.mark.usefixtures("state")
def test_serve_refuses_a_family_of_models_with_the_names_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    tiers = [{"name": "low", "models": ["claude-haiku"]}, {"name": "high", "models": ["claude-opus-4-1"]}]
    monkeypatch.setenv("TIERWISE_TIERS", json.dumps(tiers))
    assert "'claude-haiku' is a family of models" in failed(run("serve"))


@pytest.mark.usefixtures("state")
def test_serve_refuses_an_upstream_without_its_key_and_a_model_that_nobody_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiers = [{"name": "low", "models": ["small"]}, {"name": "high", "models": ["large"]}]
    upstream = {"name": "own", "base_url": "http://127.0.0.1:9/v1", "key_env": "A_KEY", "models": ["small"]}
    monkeypatch.setenv("TIERWISE_TIERS", json.dumps(tiers))
    monkeypatch.setenv("TIERWISE_UPSTREAMS", json.dumps([upstream]))
    assert "upstream 'own': A_KEY is not set; put its key there" in failed(run("serve"))
    monkeypatch.setenv("A_KEY", "made-up")
    assert "no upstream serves 'large'" in failed(run("serve"))


UPSTREAMS = (
    ([{"name": "a", "base_url": "http://x/v1/"}], "ends in a slash"), ([{"name": "a", "base_url": "x"}], "base_url"),
    ([{"name": "a", "base_url": "http://x"}, {"name": "a", "base_url": "http://y"}], "is there twice"),
    ([{"name": n, "base_url": "http://x", "models": ["m"]} for n in "ab"], "a model of two upstreams"),
    ([{"name": n, "base_url": "http://x"} for n in "ab"], "several list no models"),
)  # fmt: skip


@pytest.mark.parametrize(("upstreams", "message"), UPSTREAMS)
@pytest.mark.usefixtures("state")
def test_upstreams_that_cannot_be_are_refused(
    upstreams: list[dict[str, object]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERWISE_UPSTREAMS", json.dumps(upstreams))
    assert message in failed(run("route", "hello"))
