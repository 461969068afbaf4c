"""`tierwise check`: what it finds right and wrong, its exit status, and that it never tells a key."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydantic_core import to_json

from tests.gateway import KEY, MODELS, PRICES, TIERS
from tests.stand_in.server import StandIn, running
from training.cli import tierwise


@pytest.fixture
def url(stand_in: StandIn, state: Path) -> Iterator[str]:  # noqa: ARG001 -- it sets the folders
    with running(stand_in) as found:
        yield found


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER_KEY", KEY)


def checked(*arguments: str, monkeypatch: pytest.MonkeyPatch, **settings: object) -> Result:
    """What it says of these settings, given as variables, and the usual tiers and prices."""
    for name, value in {"tiers": TIERS, "prices": PRICES, **settings}.items():
        monkeypatch.setenv(f"TIERWISE_{name.upper()}", to_json(value).decode())
    result = CliRunner().invoke(tierwise, ["check", *arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert KEY not in result.output
    assert "Traceback" not in result.output
    return result


def upstream(url: str, **changes: object) -> Mapping[str, object]:
    return {"name": "stand-in", "base_url": url, "key_env": "PROVIDER_KEY", **changes}


def of(result: Result, about: str) -> list[str]:
    return [line for line in result.stdout.splitlines() if f" {about}: " in line]


@pytest.mark.usefixtures("keyed")
def test_what_is_right_is_said_line_by_line_and_ends_with_status_0(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = checked(monkeypatch=monkeypatch, upstreams=[upstream(url)])
    assert result.exit_code == 0
    assert [line.split(": ")[0].split(maxsplit=1) for line in result.stdout.splitlines()] == [
        ["ok", "settings"], ["warning", "router"], ["ok", "prices"], ["ok", "ledger"], ["ok", "keys"],
        ["ok", "upstream stand-in"],
    ]  # fmt: skip
    assert of(result, "upstream stand-in") == ["ok       upstream stand-in: answers, and lists 5 models"]
    assert of(result, "prices") == ["ok       prices: 4 of 4 models have one"]


@pytest.mark.usefixtures("keyed")
def test_json_is_one_object(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = checked("--json", monkeypatch=monkeypatch, upstreams=[upstream(url)])
    assert result.stdout.count("\n") == 1
    found: dict[str, Any] = json.loads(result.stdout)
    assert (found["object"], found["ok"]) == ("check", True)
    assert {"level": "ok", "about": "upstream stand-in", "message": "answers, and lists 5 models"} in found["findings"]


def test_a_missing_key_is_an_error_and_other_upstreams_are_still_tried(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "anything")
    two = [upstream(url), upstream(url, name="second", key_env="OTHER_KEY", models=["large"])]
    result = checked(monkeypatch=monkeypatch, upstreams=two)
    assert result.exit_code == 1
    assert "PROVIDER_KEY is not set" in of(result, "upstream stand-in")[0]
    assert of(result, "upstream second") == ["ok       upstream second: answers, and lists 5 models"]


def test_a_key_that_is_refused_is_named_by_its_variable(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "wrong")
    result = checked(monkeypatch=monkeypatch, upstreams=[upstream(url)])
    assert result.exit_code == 1
    assert of(result, "upstream stand-in") == [
        "error    upstream stand-in: refuses the key in PROVIDER_KEY (401)",
    ]


@pytest.mark.usefixtures("keyed", "state")
def test_an_upstream_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    result = checked(monkeypatch=monkeypatch, upstreams=[upstream("http://127.0.0.1:9/v1")])
    assert result.exit_code == 1
    assert "error    upstream stand-in: stand-in cannot be reached" in result.stdout


@pytest.mark.usefixtures("keyed")
def test_an_upstream_that_says_nothing_is_given_up(
    url: str, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.plan.order("small", "hang")
    monkeypatch.setattr("serving.checking._CALL_WITHIN_S", 0.3)  # thirty seconds otherwise
    result = checked("--call", monkeypatch=monkeypatch, upstreams=[upstream(url)])
    assert result.exit_code == 1
    assert of(result, "upstream stand-in")[1].endswith("small did not answer /chat/completions within 0.3 s")


@pytest.mark.usefixtures("keyed")
def test_no_list_of_models_is_said_and_no_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = checked(monkeypatch=monkeypatch, upstreams=[upstream(url.replace("/v1", "/v2"))])
    assert result.exit_code == 0
    assert "has no list of models (404)" in of(result, "upstream stand-in")[0]


@pytest.mark.usefixtures("keyed")
def test_a_model_that_the_upstream_does_not_list_is_said(
    url: str, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.models = MODELS[1:]
    result = checked(monkeypatch=monkeypatch, upstreams=[upstream(url)])
    assert result.exit_code == 0
    assert "warning  upstream stand-in: does not list 'small'" in result.stdout


@pytest.mark.usefixtures("keyed")
def test_models_that_nobody_serves_or_that_have_no_price_are_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = upstream(url, models=["small", "small-twin", "medium", "mine"])
    result = checked(monkeypatch=monkeypatch, upstreams=[listed])
    assert result.exit_code == 1
    assert of(result, "model large")[0].startswith("error    model large: no upstream serves it")
    assert of(result, "model mine")[0].startswith("warning  model mine: has no price")


@pytest.mark.usefixtures("keyed")
def test_a_call_is_tried_where_asked_for(url: str, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    checked(monkeypatch=monkeypatch, upstreams=[upstream(url)])
    assert stand_in.attempts.total() == 0
    result = checked("--call", monkeypatch=monkeypatch, upstreams=[upstream(url)])
    assert of(result, "upstream stand-in")[1] == "ok       upstream stand-in: small answers a call"
    assert [body["max_tokens"] for body in stand_in.asked] == [1]
    for fault, level, said in (
        ("bad_request", "warning", "small answers a call with 400: made to fail: bad_request"),
        ("echo_key", "error", "small refuses the key in PROVIDER_KEY (401)"),
        ("overloaded", "error", "small stand-in answered 503"),
        ("rate_limited", "warning", "small answers /chat/completions with 429"),
    ):
        stand_in.plan.order("small", fault)  # type: ignore[arg-type]
        line = of(checked("--call", monkeypatch=monkeypatch, upstreams=[upstream(url)]), "upstream stand-in")[1]
        assert line.startswith(f"{level:<8} upstream stand-in: {said}")


@pytest.mark.usefixtures("state")
def test_without_upstreams_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    result = checked(monkeypatch=monkeypatch)
    assert result.exit_code == 0
    assert "warning  upstreams: there are none" in result.stdout


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"port": 0}, "error    settings: settings (TIERWISE_… or tierwise.toml): port"),
        ({"policy": "cheap"}, "error    settings: policy"),
        ({"redact": "nowhere:nothing"}, "error    settings: redact"),
        ({"tiers": [TIERS[0], {**TIERS[1], "models": ["claude"]}]}, "error    model claude: 'claude' is a family"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("state")
def test_settings_that_are_wrong_are_errors(
    settings: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = checked(monkeypatch=monkeypatch, **settings)
    assert result.exit_code == 1
    assert said in result.stdout


@pytest.mark.parametrize(
    "wrong", [{"key_env": KEY}, {"key_env": "gsk_lower4case"}, {"key": KEY}, {"base_url": f"https://u:{KEY}@host/v1"}]
)
@pytest.mark.parametrize("arguments", [[], ["--json"]])
@pytest.mark.usefixtures("state")
def test_a_key_in_the_wrong_place_of_the_settings_is_not_told(
    wrong: dict[str, str], arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = checked(*arguments, monkeypatch=monkeypatch, upstreams=[upstream("http://127.0.0.1:9/v1", **wrong)])
    assert result.exit_code == 1
    assert "upstreams.0." in result.output
    assert not any(value in result.output for value in wrong.values())


@pytest.mark.usefixtures("state")
def test_a_ledger_that_cannot_be_written_is_an_error(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (state / "ledger.db").mkdir()
    result = checked(monkeypatch=monkeypatch)
    assert result.exit_code == 1
    assert of(result, "ledger")[0].startswith("error    ledger: ")


def test_a_promoted_router_fits_the_ladder_or_not(
    trained_home: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("served", "encoders"):
        shutil.copytree(trained_home / folder, state / folder)
    assert of(checked(monkeypatch=monkeypatch), "router")[0].endswith("serves the ladder economy, standard, premium")
    result = checked(monkeypatch=monkeypatch, tiers=[{**tier, "name": f"my-{tier['name']}"} for tier in TIERS])
    assert result.exit_code == 1
    assert of(result, "router")[0].startswith("error    router: tiers: the router was trained for economy")
    shutil.rmtree(state / "encoders")
    result = checked(monkeypatch=monkeypatch)
    assert result.exit_code == 0
    assert of(result, "router")[0].startswith("warning  router: ")


@pytest.mark.usefixtures("keyed")
def test_to_listen_elsewhere_without_a_key_is_an_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_HOST", "0.0.0.0")
    result = checked(monkeypatch=monkeypatch, upstreams=[upstream(url)])
    assert result.exit_code == 1
    assert "error    keys: whoever calls 0.0.0.0 needs one" in result.stdout
