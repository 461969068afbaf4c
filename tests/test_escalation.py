"""When an answer is no good: who is asked next, what the client gets, what is paid, and what is learned from it."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from serving.classifier.bundle import Bundle
from serving.errors import ConfigurationError
from serving.ledger.budgets import Budget
from serving.ledger.events import Event
from serving.ledger.sqlite.store import SqliteLedger
from serving.settings import read_settings
from serving.upstream.flaws import flaw_in
from tests.gateway import TIERS, client_of, gateway
from tests.stand_in.poor import Poor
from tests.stand_in.server import StandIn
from tests.test_gateway import dumped, events
from tests.test_gateway_faults import eventually
from tests.test_stand_in import SAID, TOOL, Bill
from training.config import FeedbackWeights
from training.fitting.from_ledger import outcomes_of
from training.labelling.outcomes import Labeller
from training.logs.ladder import Ladder

ALL = {"value": ["empty", "refused", "cut", "schema"]}
PINNED = ({"team": "frugal", "tier": "economy"},)
SCHEMA = {"type": "json_schema", "json_schema": {"name": "bill", "schema": Bill.model_json_schema()}}


@pytest.fixture
def client(tmp_path: Path, bundle: Bundle, stand_in: StandIn) -> Iterator[OpenAI]:
    """Every flaw leads to another call under `value`; where next to nothing is paid for quality, economy is chosen."""
    with gateway(tmp_path, bundle, stand_in, escalate=ALL, pins=PINNED) as url, client_of(url) as client:
        yield client


def auto(through: OpenAI, **changes: Any) -> Any:
    return through.chat.completions.with_raw_response.create(
        **{"model": "auto:value:1e-9", "messages": SAID, "extra_headers": {"x-tierwise-team": "search"}, **changes}
    )


def told(raw: Any) -> tuple[str | None, ...]:
    return tuple(raw.headers.get(f"x-tierwise-{name}") for name in ("tier", "attempts", "escalated"))


def cost(booked: list[Event]) -> float:
    return sum(event.cost.pico_usd for event in booked if event.cost is not None) / 1e12


FLAWED: tuple[tuple[Poor, str, dict[str, Any]], ...] = (
    ("empty", "empty", {}), ("refused", "refused", {}), ("filtered", "refused", {}), ("cut", "cut", {}),
    ("no_json", "schema", {"response_format": {"type": "json_object"}}),
    ("off_schema", "schema", {"response_format": SCHEMA}),
)  # fmt: skip


@pytest.mark.parametrize(("poor", "flaw", "changes"), FLAWED)
def test_an_answer_with_a_flaw_is_replaced_by_that_of_the_next_tier_and_both_are_booked(
    client: OpenAI, stand_in: StandIn, tmp_path: Path, poor: Poor, flaw: str, changes: dict[str, Any]
) -> None:
    stand_in.poor = {"small": [poor]}
    raw = auto(client, **changes)
    found = raw.parse()
    assert (found.model, found.choices[0].finish_reason) == ("medium", "stop")
    assert told(raw) == ("standard", "2", flaw)
    first, second = events(tmp_path)
    assert (first.status, first.wasted, first.error, first.tier) == ("ok", True, f"answer_{flaw}", "economy")
    assert (second.status, second.wasted, second.error, second.tier) == ("ok", False, None, "standard")
    assert (first.decision_id, first.saved) == (second.decision_id, {})
    assert second.completion_id == found.id
    assert first.usage is not None
    assert first.cost is not None
    assert float(raw.headers["x-tierwise-cost-usd"]) == pytest.approx(cost([first, second]), rel=1e-12)


def test_the_responses_api_escalates_alike(client: OpenAI, stand_in: StandIn, tmp_path: Path) -> None:
    for poor, flaw in (("empty", "empty"), ("refused", "refused"), ("cut", "cut")):
        stand_in.poor = {"small": [poor]}  # type: ignore[list-item]
        raw = client.responses.with_raw_response.create(model="auto:value:1e-9", input="Is the invoice due?")
        assert raw.parse().output_text
        assert told(raw) == ("standard", "2", flaw)
    assert [event.wasted for event in events(tmp_path)] == [True, False] * 3


GOOD: tuple[dict[str, Any], ...] = (
    {}, {"messages": [{"role": "user", "content": "use look_up"}], "tools": [TOOL]}, {"response_format": SCHEMA},
    {"max_tokens": 5}, {"n": 2},
)  # fmt: skip


@pytest.mark.parametrize("changes", GOOD)
def test_a_good_answer_and_one_cut_where_the_client_said_are_given(
    client: OpenAI, tmp_path: Path, changes: dict[str, Any]
) -> None:
    raw = auto(client, **changes)
    assert told(raw) == ("economy", "1", None)
    (event,) = events(tmp_path)
    assert (event.error, event.wasted) == (None, False)


def test_streams_models_by_name_pins_and_other_policies_are_left_alone(
    client: OpenAI, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.poor = {"small": ["empty"] * 3, "medium": ["empty"], "large": ["empty"]}
    assert client.chat.completions.create(model="small", messages=SAID).choices[0].message.content == ""
    assert auto(client, extra_headers={"x-tierwise-team": "frugal"}).headers["x-tierwise-reason"] == "pinned"
    assert told(auto(client, model="auto:quality:0.95"))[1:] == ("1", None)
    assert list(auto(client, stream=True).parse())
    assert all(event.error is None and not event.wasted for event in events(tmp_path))


def test_there_is_one_escalation_and_an_answer_that_is_none_does_not_replace_the_first(
    client: OpenAI, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.poor = {"small": ["cut"], "medium": ["refused"]}
    raw = auto(client)
    assert raw.parse().choices[0].message.content == "An answer that en"
    assert told(raw) == ("economy", "2", "cut")
    assert [(event.model, event.wasted, event.error) for event in events(tmp_path)] == [
        ("small", False, "answer_cut"), ("medium", True, "answer_refused"),
    ]  # fmt: skip
    assert float(raw.headers["x-tierwise-cost-usd"]) == pytest.approx(cost(events(tmp_path)), rel=1e-12)


def test_a_second_answer_with_another_flaw_is_an_answer_all_the_same(client: OpenAI, stand_in: StandIn) -> None:
    stand_in.poor = {"small": ["empty"], "medium": ["cut"]}
    raw = auto(client)
    assert raw.parse().choices[0].message.content == "An answer that en"
    assert told(raw) == ("standard", "2", "empty")


@pytest.mark.parametrize("fault", ["server_error", "bad_request", "not_json"])
def test_where_the_second_call_fails_the_client_gets_the_first_answer_as_it_came(
    client: OpenAI, stand_in: StandIn, tmp_path: Path, fault: Any
) -> None:
    stand_in.poor = {"small": ["cut"]}
    stand_in.plan.order("medium", fault, fault)
    raw = auto(client)
    assert raw.parse().model == "small"
    tries = 1 if fault == "bad_request" else 2
    assert told(raw) == ("economy", str(1 + tries), "cut")
    first, *others = sorted(events(tmp_path), key=lambda event: event.key)
    assert (first.wasted, first.error) == (False, "answer_cut")
    assert [(event.wasted, event.status) for event in others] == [(True, "error")] * tries


def test_the_top_tier_has_nobody_above_and_its_flaw_is_noted(client: OpenAI, stand_in: StandIn, tmp_path: Path) -> None:
    for model in ("small", "small-twin", "medium"):
        stand_in.plan.order(model, "server_error", "server_error")
    stand_in.poor = {"large": ["empty"]}
    raw = auto(client)
    assert (raw.headers["x-tierwise-tier"], told(raw)[2]) == ("premium", None)
    assert events(tmp_path)[-1].error == "answer_empty"


def test_a_tier_that_cannot_take_the_request_is_passed_over(tmp_path: Path, bundle: Bundle, stand_in: StandIn) -> None:
    tiers = [{**tier, "json_mode": tier["name"] != "standard"} for tier in TIERS]
    stand_in.poor = {"small": ["off_schema"]}
    with gateway(tmp_path, bundle, stand_in, escalate=ALL, tiers=tiers) as url, client_of(url) as client:
        assert told(auto(client, response_format=SCHEMA)) == ("premium", "2", "schema")


def test_no_second_call_is_begun_that_would_hardly_end_in_time(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn
) -> None:
    stand_in.latency_s, stand_in.poor = 0.6, {"small": ["cut"]}
    with gateway(tmp_path, bundle, stand_in, escalate=ALL, deadline_s=1.1) as url, client_of(url) as client:
        assert told(auto(client)) == ("economy", "1", None)
    assert stand_in.attempts == {"small": 1}


def test_a_second_call_ends_with_the_deadline_and_the_first_answer_is_given(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn
) -> None:
    stand_in.poor = {"small": ["cut"]}
    stand_in.plan.order("medium", "hang")
    with gateway(tmp_path, bundle, stand_in, escalate=ALL, deadline_s=1.0) as url, client_of(url) as client:
        assert told(auto(client)) == ("economy", "2", "cut")
    first, second = events(tmp_path)
    assert (first.wasted, second.wasted, second.status) == (False, True, "cancelled")
    assert first.latency_ms is not None
    assert first.latency_ms < 900  # its own, not that of both


def test_an_escalation_that_a_budget_cannot_bear_is_not_made_and_what_is_held_goes(
    client: OpenAI, stand_in: StandIn, tmp_path: Path
) -> None:
    route = str(client.base_url).replace("/v1/", "/route")
    asked = {"messages": SAID, "policy": "value:1e-9"}
    expected = httpx.post(route, json=asked, trust_env=False).json()["expected_cost_usd"]
    limit = round(1e12 * 3 * expected)  # the next tier costs four times as much
    budget = Budget(scope="team", value="search", period="day", limit_pico_usd=limit, hard=True)
    with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        ledger.set_budget(budget)
        stand_in.poor = {"small": ["cut"]}
        time.sleep(2.2)  # the service looks for budgets once a second
        raw = auto(client)
        assert told(raw) == ("economy", "1", None)
        (status,) = ledger.budget_status(datetime.now(UTC))
        assert status.reserved_pico_usd == 0


def test_what_is_held_for_both_calls_goes_when_they_are_paid(client: OpenAI, stand_in: StandIn, tmp_path: Path) -> None:
    auto(client)
    budget = Budget(scope="team", value="search", period="day", limit_pico_usd=10**12, hard=True)
    with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        ledger.set_budget(budget)
        time.sleep(2.2)  # the service looks for budgets once a second
        stand_in.poor = {"small": ["cut"]}
        assert told(auto(client)) == ("standard", "2", "cut")
        (status,) = ledger.budget_status(datetime.now(UTC))
    assert status.reserved_pico_usd == 0
    assert status.spent_pico_usd == sum(event.cost.pico_usd for event in events(tmp_path) if event.cost)


def test_a_client_that_leaves_during_the_second_call_ends_it(client: OpenAI, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.poor = {"small": ["cut"]}
    stand_in.plan.order("medium", "hang")
    with pytest.raises(openai.APITimeoutError):
        auto(client.with_options(timeout=0.8))
    assert eventually(lambda: all(event.status != "started" for event in events(tmp_path)))
    assert sorted((event.status, event.wasted) for event in events(tmp_path)) == [("cancelled", True), ("ok", False)]


def test_the_flaw_is_a_label_of_its_tier_and_feedback_is_about_the_answer_that_was_given(
    client: OpenAI, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.poor = {"small": ["empty"] * 2}
    stand_in.plan.order("small", "server_error")  # which says nothing of the tier
    by_decision, by_answer = auto(client), auto(client)
    said = [by_decision.headers["x-tierwise-decision"], by_answer.parse().id]
    for id_ in said:
        given = httpx.post(f"{client.base_url}feedback", json={"id": id_, "acceptable": True}, trust_env=False)
        assert given.status_code == 200
    with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        logged = list(ledger.logged())
    ladder = Ladder.model_validate({"tiers": [{"name": tier["name"], "models": tier["models"]} for tier in TIERS]})
    labeller = Labeller(ladder.names, 0.5, FeedbackWeights(), 100.0)
    assert len(logged) == 2
    for decision, calls, feedback in logged:
        labels = labeller(outcomes_of(decision, calls, feedback, ladder))
        assert labels.acceptable.tolist()[:2] == [0.0, 1.0]
        assert labels.trust.tolist()[:2] == [FeedbackWeights().escalate, 1.0]


def test_a_name_of_no_flaw_is_an_error_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for wrong in ("[escalate]\nquality = ['slow']", "[escalate]\nprice = ['cut']"):
        (tmp_path / "tierwise.toml").write_text(wrong, "utf-8")
        with pytest.raises(ConfigurationError, match=r"escalate\.(quality|price)"):
            read_settings()
    (tmp_path / "tierwise.toml").write_text("[escalate]\nquality = ['cut', 'schema']", "utf-8")
    assert read_settings().escalate.under("quality") == ("cut", "schema")


def test_without_the_setting_an_answer_is_given_as_it_came(through: OpenAI, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.poor = {"small": ["empty"], "medium": ["empty"], "large": ["empty"]}
    raw = auto(through)
    assert told(raw)[1:] == ("1", None)
    assert flaw_in(json.loads(raw.text), {}, ("empty",)) == "empty"
    (event,) = events(tmp_path)
    assert (event.error, dumped(raw.parse())["choices"][0]["message"]["content"]) == (None, "")
