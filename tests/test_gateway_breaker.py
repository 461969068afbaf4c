"""A model that fails again and again: who is asked instead, what a client gets, and how the model comes back."""

import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from serving.classifier.bundle import Bundle
from serving.ledger.budgets import Budget
from serving.ledger.sqlite.store import SqliteLedger
from tests.gateway import MODELS, client_of, gateway
from tests.stand_in.faults import Fault
from tests.stand_in.server import StandIn
from tests.test_gateway import ask, events
from tests.test_gateway_faults import auto, eventually, tier_models

LONG = {"breaker_failures": 2, "breaker_first_s": 60}
SHORT = {"breaker_failures": 2, "breaker_first_s": 0.5}


def fail(through: OpenAI, stand_in: StandIn, *models: str) -> None:
    """One call by name of each, both of whose attempts fail, which is enough here."""
    for model in models:
        stand_in.plan.order(model, "server_error", "server_error")
        with pytest.raises(openai.InternalServerError):
            ask(through, model=model)


def served(url: Any, path: str) -> httpx.Response:
    return httpx.get(str(url).removesuffix("/").removesuffix("/v1") + path, trust_env=False)


def left_out(through: OpenAI) -> list[str]:
    return [one["model"] for one in served(through.base_url, "/status").json()["left_out"]]


def test_the_next_model_is_asked_at_once_while_one_is_left_out(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn
) -> None:
    with gateway(tmp_path, bundle, stand_in, **LONG) as url, client_of(url) as client:
        models = tier_models(auto(client))
        stand_in.plan.order(models[0], "server_error", "server_error")
        assert auto(client).headers["x-tierwise-attempts"] == "3"
        asked = stand_in.attempts[models[0]]
        raw = auto(client)
        assert raw.headers["x-tierwise-attempts"] == "1"
        assert raw.parse().model != models[0]
        assert stand_in.attempts[models[0]] == asked
        assert left_out(client) == [models[0]]


def test_when_all_that_may_answer_are_left_out_a_client_gets_503_and_nothing_goes_out(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn
) -> None:
    with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        ledger.set_budget(Budget(scope="team", value="search", period="day", limit_pico_usd=10**12, hard=True))
    with gateway(tmp_path, bundle, stand_in, **LONG) as url, client_of(url) as client:
        fail(client, stand_in, *MODELS[:4])
        sent, booked = stand_in.attempts.total(), len(events(tmp_path))
        for model in ("small", "auto"):
            with pytest.raises(openai.InternalServerError) as raised:
                ask(client, model=model, extra_headers={"x-tierwise-team": "search"})
            assert (raised.value.status_code, raised.value.code) == (503, "upstream_unavailable")
            assert 50 <= int(raised.value.response.headers["retry-after"]) <= 60
            assert "x-should-retry" not in raised.value.response.headers  # nothing was tried here
        assert (stand_in.attempts.total(), len(events(tmp_path))) == (sent, booked)
        with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
            assert eventually(lambda: ledger.budget_status(datetime.now(UTC))[0].reserved_pico_usd == 0)
        assert ask(client, model="other").choices


def test_a_model_is_tried_again_after_a_while_and_comes_back(tmp_path: Path, bundle: Bundle, stand_in: StandIn) -> None:
    with gateway(tmp_path, bundle, stand_in, **SHORT) as url, client_of(url) as client:
        fail(client, stand_in, "small")
        assert left_out(client) == ["small"]
        time.sleep(0.6)
        stand_in.plan.order("small", "server_error")
        with pytest.raises(openai.InternalServerError):  # the try fails, and there is no second one
            ask(client)
        with pytest.raises(openai.InternalServerError, match="done so lately"):  # it is left out for 1 s now
            ask(client)
        time.sleep(1.1)
        assert ask(client).choices
        assert left_out(client) == []
        assert stand_in.attempts["small"] == 4


def test_one_call_at_a_time_tries_a_model_and_a_client_that_leaves_frees_the_place(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn
) -> None:
    with gateway(tmp_path, bundle, stand_in, **SHORT) as url, client_of(url) as client:
        fail(client, stand_in, "small")
        time.sleep(0.6)
        stand_in.latency_s = 5
        gone = threading.Thread(target=leave, args=(client,))
        gone.start()
        assert eventually(lambda: stand_in.attempts["small"] == 3)
        with pytest.raises(openai.InternalServerError, match="tried in 1 s"):
            ask(client)
        gone.join()
        assert eventually(lambda: stand_in.left == 1)
        stand_in.latency_s = 0
        assert left_out(client) == ["small"]  # a client that left says nothing of the model
        assert ask(client).choices
        assert left_out(client) == []


def leave(client: OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=2))


def test_a_stream_that_is_left_frees_the_place_and_one_that_ends_well_brings_the_model_back(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn
) -> None:
    with gateway(tmp_path, bundle, stand_in, **SHORT) as url, client_of(url) as client:
        fail(client, stand_in, "small")
        time.sleep(0.6)
        stand_in.between_s = 0.05
        stream = ask(client, stream=True)
        assert next(stream).choices
        with pytest.raises(openai.InternalServerError, match="tried in 1 s"):
            ask(client)
        stream.close()
        assert eventually(lambda: stand_in.left == 1)
        stand_in.between_s = 0
        assert list(ask(client, stream=True))
        assert left_out(client) == []


@pytest.mark.parametrize("fault", ["reset_midway", "silent_end", "malformed_event"])
def test_streams_that_break_midway_leave_a_model_out(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn, fault: Fault
) -> None:
    with gateway(tmp_path, bundle, stand_in, **LONG) as url, client_of(url) as client:
        stand_in.plan.order("small", fault, fault)
        for _ in range(2):
            assert left_out(client) == []
            with pytest.raises(openai.APIError):
                list(ask(client, stream=True))
        assert left_out(client) == ["small"]


@pytest.mark.parametrize("fault", ["bad_request", "echo_key", "rate_limited"])
def test_what_a_provider_refuses_leaves_no_model_out(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn, fault: Fault
) -> None:
    with gateway(tmp_path, bundle, stand_in, **LONG) as url, client_of(url) as client:
        stand_in.plan.order("small", *[fault] * 4)
        for _ in range(2):
            with pytest.raises(openai.APIStatusError):
                ask(client)
        assert left_out(client) == []


def test_a_model_that_takes_all_the_time_there_is_has_failed(tmp_path: Path, bundle: Bundle, stand_in: StandIn) -> None:
    with gateway(tmp_path, bundle, stand_in, deadline_s=0.3, **LONG) as url, client_of(url) as client:
        stand_in.plan.order("small", "hang", "hang")
        for code in ("upstream_timeout", "upstream_timeout", "upstream_unavailable"):
            with pytest.raises(openai.InternalServerError) as raised:
                ask(client)
            assert raised.value.code == code


def test_the_metric_names_no_model_that_only_a_client_did(tmp_path: Path, bundle: Bundle, stand_in: StandIn) -> None:
    stand_in.models = (*MODELS, "made-up")
    with gateway(tmp_path, bundle, stand_in, **SHORT) as url, client_of(url) as client:
        fail(client, stand_in, "small", "made-up")
        assert left_out(client) == ["other", "small"]
        for state in ("1.0", "0.0"):
            lines = {f'tierwise_model_left_out{{model="{model}"}} {state}' for model in ("small", "other")}
            assert eventually(lambda lines=lines: lines <= set(served(url, "/metrics").text.splitlines()))  # type: ignore
            assert "made-up" not in served(url, "/metrics").text
            if state == "1.0":
                assert all(ask(client, model=model).choices for model in ("small", "made-up"))
