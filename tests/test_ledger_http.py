"""Calls recorded over HTTP, and the report of them."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from serving.classifier.bundle import Bundle
from serving.ledger.sqlite.store import SqliteLedger
from serving.settings import Settings
from tests.application import Client, application, refused

CALL = {
    "model": "gpt-4o-mini",
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    "metadata": {"team": "support", "feature": "summary"},
}
COST = Decimal("0.00021")  # 1,000 × .15 + 100 × .6 millionths


@pytest.fixture
def client(tmp_path: Path, bundle: Bundle) -> Iterator[Client]:
    prices = [{"model": "large", "usd_per_mtok_in": 10, "usd_per_mtok_out": 30},
              {"model": "small", "usd_per_mtok_in": 1, "usd_per_mtok_out": 3}]  # fmt: skip
    with application(tmp_path / "app", bundle, Settings.model_validate({"home": tmp_path, "prices": prices})) as client:
        yield client


def recorded(client: Client, **changes: object) -> dict[str, Any]:
    response = client.post("/ledger/events", CALL | changes)
    assert response.status_code == 200, response.text
    return dict(json.loads(response.text, parse_float=Decimal))


def report(client: Client, query: str = "") -> dict[str, Any]:
    response = client.get(f"/ledger/report{query}")
    assert response.status_code == 200, response.text
    return dict(json.loads(response.text, parse_float=Decimal))


def test_a_recorded_call_is_priced_and_reported(client: Client) -> None:
    answer = recorded(client, latency_ms=800)
    assert (answer["object"], answer["recorded"], answer["cost_usd"]) == ("ledger.event", True, COST)
    assert answer["price"]["source"].startswith("genai-prices ")
    found = report(client, "?days=1")
    assert (found["period_days"], found["total_requests"]) == (1, 1)
    assert found["total_cost_usd"] == found["avg_cost_per_request"] == COST
    assert found["projected_monthly_cost"] == 30 * COST
    assert [(line["team"], line["cost_usd"]) for line in found["top_teams"]] == [("support", COST)]
    assert [(line["model"], line["input_tokens"]) for line in found["by_model"]] == [("gpt-4o-mini", 1000)]
    assert found["daily"][0]["day"] == datetime.now(UTC).date().isoformat()
    assert found["unknown"] == {"events": 1, "unpriced": 0, "unmetered": 0, "estimated": 0, "unpriced_requests": 0}
    assert 'tierwise_ledger_events_total{kind="call",status="ok"} 1.0' in client.metrics()


def test_a_key_sent_again_is_recorded_once(client: Client) -> None:
    assert recorded(client, key="a")["recorded"]
    again = client.request("POST", "/ledger/events", json.dumps(CALL).encode(), **{"Idempotency-Key": "a"})
    assert (again.json()["key"], again.json()["recorded"]) == ("a", False)
    assert report(client)["total_requests"] == 1
    without = {recorded(client)["key"] for _ in range(3)}
    assert len(without) == 3


def test_two_different_keys_are_refused(client: Client) -> None:
    body = json.dumps(CALL | {"key": "a"}).encode()
    error = refused(client.request("POST", "/ledger/events", body, **{"Idempotency-Key": "b"}))
    assert error["param"] == "key"


@pytest.mark.parametrize("key", ["two words", "x" * 257])
def test_a_key_that_no_header_should_carry_is_refused(client: Client, key: str) -> None:
    body = json.dumps(CALL).encode()
    error = refused(client.request("POST", "/ledger/events", body, **{"Idempotency-Key": key}))
    assert error["param"] == "Idempotency-Key"


def test_what_is_unknown_is_listed_and_not_counted_as_nothing(client: Client) -> None:
    assert recorded(client, model="in-house-7b")["cost_usd"] is None
    assert recorded(client, usage=None)["cost_usd"] is None
    recorded(client)
    found = report(client)
    assert found["unknown"] == {"events": 3, "unpriced": 2, "unmetered": 1, "estimated": 0, "unpriced_requests": 2}
    assert found["avg_cost_per_request"] == found["total_cost_usd"] == COST


def test_the_tokens_of_an_answer_that_was_cut_off_are_estimated_and_marked(client: Client, tmp_path: Path) -> None:
    """'Is it due?' is 3 words of 7 letters and a mark: 2.40 + .49 + .58 = 3.47, so 3. 'Yes, on' is 2, 5 and 1: 2.53."""
    seen = {"input_text": "Is it due?", "output_text": "Yes, on", "status": "cancelled", "model": "gpt-4o-mini"}
    assert recorded(client, usage=None, **seen)["cost_usd"] == 3 * Decimal("0.15e-6") + 3 * Decimal("0.6e-6")
    told = recorded(client, usage={"prompt_tokens": 1_000}, **seen)  # what was told is not estimated again
    assert told["cost_usd"] == 1_000 * Decimal("0.15e-6") + 3 * Decimal("0.6e-6")
    recorded(client, input_text="counted already", output_text="both")
    unknown = report(client)["unknown"]
    assert (unknown["unmetered"], unknown["estimated"]) == (0, 2)
    now = datetime.now(UTC)
    with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        events = list(ledger.events(now - timedelta(hours=1), now + timedelta(hours=1)))
    assert [event.usage_estimated for event in events] == [True, True, False]
    assert "Yes, on" not in (tmp_path / "ledger.db").read_bytes().decode("latin-1")


def test_what_was_paid_is_taken_to_the_last_digit(client: Client) -> None:
    assert recorded(client, cost_usd="1.000000000001")["cost_usd"] == Decimal("1.000000000001")
    assert recorded(client, cost_usd=2)["price"] == {"source": "client", "dated": None}
    assert report(client)["total_cost_usd"] == Decimal("3.000000000001")


def test_a_call_that_a_decision_chose_saved_what_the_top_tier_would_have_cost_beyond_it(client: Client) -> None:
    """The ladder's top model is `large`: 1,000 × 10 + 100 × 30 millionths, against 1,000 × 1 + 100 × 3."""
    answer = recorded(client, model="small", decision_id="dec_1")
    assert (answer["tier"], answer["saved_usd"]) == ("economy", {"routing": Decimal("0.0117")})
    assert recorded(client, model="small-2026-01-01", model_asked="small")["tier"] == "economy"
    assert recorded(client, model="small")["saved_usd"] == {}  # nothing was decided
    assert recorded(client, model="small", decision_id="dec_2", wasted=True)["saved_usd"] == {}
    recorded(client, model="small", kind="judge")
    savings = report(client)["savings"]
    assert savings["routing_usd"] == Decimal("0.0117")
    assert savings["spent_on_saving_usd"] == 2 * Decimal("0.0013")
    assert savings["net_usd"] == Decimal("0.0117") - 2 * Decimal("0.0013")


def test_a_batch_is_credited_once_for_the_model_and_once_for_the_batch(client: Client) -> None:
    """gpt-4o-mini: 1,000 × .15 + 100 × .6 millionths, half of it in a batch; the top tier 1,000 × 10 + 100 × 30."""
    answer = recorded(client, model="gpt-4o-mini", provider="openai", decision_id="dec_1", batch=True)
    assert answer["cost_usd"] == Decimal("0.000105")
    assert answer["saved_usd"] == {"routing": Decimal("0.01279"), "batch": Decimal("0.000105")}
    paid = recorded(client, model="gpt-4o-mini", decision_id="dec_1", batch=True, cost_usd="0.0001")
    assert paid["saved_usd"] == {}  # what it would have cost alone was not told


def test_a_service_tier_is_priced_as_such(client: Client) -> None:
    """o3 as flex costs half: 1,000 × 1 + 100 × 4 millionths."""
    assert recorded(client, model="o3", service_tier="flex")["cost_usd"] == Decimal("0.0014")
    assert recorded(client, model="o3", service_tier="default")["cost_usd"] == Decimal("0.0028")
    assert recorded(client, model="gpt-4", service_tier="flex")["cost_usd"] is None
    usual = recorded(client, model="llama-3.3-70b-versatile", provider="groq", service_tier="on_demand")
    assert usual["cost_usd"] == Decimal("0.000669")  # .59 and .79 a million, and as OpenAI's `default`


def test_parts_of_a_report_add_up_to_its_total(client: Client) -> None:
    for i in range(20):
        recorded(client, cost_usd=f"0.{i:012d}", model=f"m{i % 3}", metadata={"team": f"t{i % 2}"}, tier=None)
    found = report(client, "?days=3&by=user")
    for name in ("daily", "by_model", "by_tier", "top_teams"):
        assert sum(line["cost_usd"] for line in found[name]) == found["total_cost_usd"]
    assert sum(line["cost_usd"] for line in found["by"]["lines"]) == found["total_cost_usd"]
    assert found["by"]["dimension"] == "user"


def test_a_report_holds_the_days_it_was_asked_for(client: Client) -> None:
    now = datetime.now(UTC)
    for back in (0, 6, 7):
        recorded(client, time=(now - timedelta(days=back)).isoformat())
    assert report(client, "?days=7")["total_requests"] == 2
    assert report(client, "?days=8")["total_requests"] == 3
    assert report(client, "?days=7")["projected_monthly_cost"] == 30 * 2 * COST / 7


def test_a_report_comes_as_csv_that_no_spreadsheet_takes_for_formulas(client: Client) -> None:
    recorded(client, metadata={"team": "=1+1"})
    response = client.get("/ledger/report?by=team&format=csv")
    assert response.headers["content-type"].startswith("text/csv")
    assert response.text.splitlines() == [
        "team,cost_usd,requests,unpriced_events,input_tokens,output_tokens",
        "'=1+1,0.00021,1,0,1000,100",
    ]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m\u0000"}, "model"),
        ({"usage": {"prompt_tokens": -1}}, "usage"),
        ({"usage": "much"}, "usage"),
        ({"cost_usd": -1}, "cost_usd"),
        ({"cost_usd": True}, "cost_usd"),
        ({"cost_usd": "1e-13"}, "cost_usd"),
        ({"cost_usd": "1e400"}, "cost_usd"),
        ({"cost_usd": "a lot"}, "cost_usd"),
        ({"time": "2026-01-01T00:00:00"}, "time"),
        ({"time": 1_700_000_000}, "time"),
        ({"wasted": 0}, "wasted"),
        ({"latency_ms": "5"}, "latency_ms"),
        ({"kind": "cache_hit"}, "kind"),
        ({"metadata": {"team": 5}}, "metadata.team"),
        ({"metadata": {"team": "x" * 300}}, "metadata.team"),
        ({"cost": 1}, "cost"),
        ({"latency_ms": -5}, "latency_ms"),
    ],
)
def test_a_call_that_cannot_be_is_refused_and_not_recorded(client: Client, changes: dict[str, Any], param: str) -> None:
    assert refused(client.post("/ledger/events", CALL | changes))["param"] == param
    assert report(client)["unknown"]["events"] == 0


@pytest.mark.parametrize(
    ("query", "param"),
    [("days=0", "days"), ("days=x", "days"), ("days=99999999999999", "days"), ("days=²", "days"), ("by=day", "by"),
     ("format=xml", "format"), ("week=1", "week")],
)  # fmt: skip
def test_a_report_that_cannot_be_is_refused(client: Client, query: str, param: str) -> None:
    assert refused(client.get(f"/ledger/report?{query}"))["param"] == param


def test_while_the_ledger_cannot_be_opened_nothing_is_recorded_and_decisions_go_on(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ledger.db").mkdir()
    with application(tmp_path / "app", bundle, Settings(home=tmp_path)) as client:
        error = refused(client.post("/ledger/events", CALL), 503)
        assert error["message"] == "the ledger cannot be written or read; /status says why"
        status = client.get("/status").json()
        assert status["degraded"]
        assert "ledger.db" in status["ledger_problem"]
        assert client.post("/route", {"prompt": "hello"}).status_code == 200
        (tmp_path / "ledger.db").rmdir()
        monkeypatch.setattr("serving.ledger.access._TRY_AGAIN_S", 0.0)
        assert recorded(client)["recorded"]
        assert client.get("/status").json()["ledger_problem"] is None


def test_what_a_client_named_is_only_data(client: Client, tmp_path: Path) -> None:
    recorded(client, user="'); DROP TABLE events; --", metadata={"team": '\\u0000usd:5"'})
    found = report(client, "?by=user")
    assert found["by"]["lines"][0]["user"] == "'); DROP TABLE events; --"
    assert found["top_teams"][0]["team"] == '\\u0000usd:5"'
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        assert database.execute("SELECT COUNT(*) FROM events").fetchone() == (1,)
