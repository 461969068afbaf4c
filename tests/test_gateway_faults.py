"""What goes wrong at a provider: what the client gets, and what the ledger has of it."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from serving.classifier.bundle import Bundle
from tests.gateway import KEY, MODELS, client_of, gateway
from tests.stand_in.faults import FAULTS, Fault
from tests.stand_in.server import StandIn
from tests.test_gateway import ask, events
from tests.test_stand_in import SAID

RETRIED: tuple[Fault, ...] = ("rate_limited", "overloaded", "server_error", "reset", "reset_midway", "not_json", "html")
UNBILLED: tuple[Fault, ...] = ("rate_limited", "overloaded", "server_error")
CODES = {
    "rate_limited": "rate_limited_429", "overloaded": "status_503", "server_error": "status_500", "reset": "connection",
    "reset_midway": "connection", "not_json": "malformed", "html": "malformed",
}  # fmt: skip


def auto(through: OpenAI, **changes: Any) -> Any:
    """A call that may not go to the top tier."""
    return through.chat.completions.with_raw_response.create(
        **{"model": "auto:share:0", "messages": SAID, "extra_headers": {"x-tierwise-team": "search"}, **changes}
    )


def tier_models(raw: Any) -> tuple[str, ...]:
    return {"economy": ("small", "small-twin"), "standard": ("medium",), "premium": ("large",)}[
        raw.headers["x-tierwise-tier"]
    ]


@pytest.mark.parametrize("fault", RETRIED)
def test_a_call_that_fails_once_is_tried_again_and_both_attempts_are_booked(
    through: OpenAI, stand_in: StandIn, tmp_path: Path, fault: Fault
) -> None:
    for model in MODELS:
        stand_in.plan.order(model, fault)
    raw = auto(through)
    assert raw.parse().choices[0].finish_reason == "stop"
    *failed, answered = events(tmp_path)
    assert int(raw.headers["x-tierwise-attempts"]) == len(failed) + 1 == stand_in.attempts.total()
    assert failed
    for event in failed:
        assert (event.status, event.wasted, event.error) == ("error", True, CODES[fault])
        assert (event.cost is None) == (fault not in UNBILLED)  # what a broken answer cost is unknown
    assert (answered.status, answered.wasted, answered.team) == ("ok", False, "search")
    assert {event.decision_id for event in failed} == {answered.decision_id}


def test_when_all_models_of_a_tier_fail_the_next_tier_answers_and_never_a_weaker_one(
    through: OpenAI, stand_in: StandIn, tmp_path: Path
) -> None:
    decided = auto(through)
    models = tier_models(decided)
    for model in models:
        stand_in.plan.order(model, *["server_error"] * 2)
    raw = auto(through)
    found = raw.parse()
    assert found.model not in models
    tried = [event.model_asked for event in events(tmp_path)[1:]]
    assert tried == [model for model in models for _ in range(2)] + [found.model]
    ladder = ["economy", "standard", "premium"]
    assert ladder.index(raw.headers["x-tierwise-tier"]) == ladder.index(decided.headers["x-tierwise-tier"]) + 1


def test_a_model_asked_for_by_name_is_tried_twice_and_its_own_error_is_passed_on(
    through: OpenAI, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.plan.order("small", "overloaded", "rate_limited")
    with pytest.raises(openai.RateLimitError, match="made to fail: rate_limited") as raised:
        ask(through)
    assert raised.value.code == "rate_limit_exceeded"
    assert raised.value.response.headers["retry-after"] == "0.05"
    assert [(event.wasted, event.error) for event in events(tmp_path)] == [
        (True, "status_503"), (False, "rate_limited_429"),
    ]  # fmt: skip


def test_a_wrong_request_is_passed_on_at_once_as_it_came(through: OpenAI, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.plan.order("small", "bad_request")
    with pytest.raises(openai.BadRequestError, match="made to fail: bad_request"):
        ask(through)
    (event,) = events(tmp_path)
    assert (event.status, event.error, event.wasted) == ("error", "status_400", False)
    assert event.cost is not None
    assert event.cost.pico_usd == 0


def test_the_key_of_the_provider_is_not_told_where_the_provider_repeats_it(
    through: OpenAI, stand_in: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.plan.order("small", "echo_key")
    with pytest.raises(openai.AuthenticationError, match=r"Bearer \[key\]") as raised:
        ask(through)
    assert KEY not in raised.value.response.text + caplog.text
    assert KEY.encode() not in (tmp_path / "ledger.db").read_bytes()


def test_a_key_that_is_only_a_placeholder_is_no_secret_and_changes_no_answer(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACEHOLDER", "x")
    upstream = {"name": "own", "key_env": "PLACEHOLDER"}
    with gateway(tmp_path, bundle, stand_in, upstream=upstream) as url, client_of(url) as client:
        assert ask(client).choices[0].index == 0


def test_a_provider_that_hangs_is_given_up_and_another_model_asked(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn
) -> None:
    quick = {"name": "quick", "key_env": "PROVIDER_KEY", "timeout_s": 0.3}
    with gateway(tmp_path, bundle, stand_in, upstream=quick) as url, client_of(url) as client:
        for model in MODELS[:2]:
            stand_in.plan.order(model, "hang")
        raw = auto(client)
        assert raw.parse().choices[0].finish_reason == "stop"
        timed_out = [event for event in events(tmp_path) if event.error == "timeout"]
        assert all(event.wasted and event.cost is None and event.status == "error" for event in timed_out)
        stand_in.plan.clear()
        stand_in.plan.order("large", "hang")
        with pytest.raises(openai.InternalServerError) as raised:
            ask(client, model="large")
        assert (raised.value.status_code, raised.value.code) == (504, "upstream_timeout")


BROKEN: tuple[Fault, ...] = ("reset_midway", "silent_end", "malformed_event")


@pytest.mark.parametrize("fault", BROKEN)
def test_a_stream_that_breaks_ends_with_an_error_and_what_came_is_booked(
    through: OpenAI, stand_in: StandIn, tmp_path: Path, fault: Fault
) -> None:
    stand_in.plan.order("small", fault)
    stand_in.between_s = 0.005  # what is not read yet is lost when a connection is reset
    stream = ask(through, stream=True)
    assert next(stream).choices
    with pytest.raises(openai.APIError, match="the answer broke off"):
        list(stream)
    (event,) = events(tmp_path)
    assert (event.status, event.usage_estimated, event.wasted) == ("error", True, False)
    assert str(event.error).startswith("stream_")
    assert event.usage is not None
    assert event.usage.output_tokens is not None
    assert event.usage.output_tokens > 5
    assert event.cost is not None
    assert stand_in.attempts["small"] == 1  # nothing is tried again once a byte has gone out


@pytest.mark.parametrize("fault", ["rate_limited", "server_error", "reset", "html"])
def test_a_stream_that_fails_before_its_first_byte_is_tried_again(
    through: OpenAI, stand_in: StandIn, tmp_path: Path, fault: Fault
) -> None:
    for model in MODELS:
        stand_in.plan.order(model, fault)
    chunks = list(auto(through, stream=True).parse())
    assert chunks[-1].choices[0].finish_reason == "stop"
    *failed, answered = events(tmp_path)
    assert all(event.wasted for event in failed)
    assert failed
    assert (answered.status, answered.usage_estimated) == ("ok", False)


def eventually(found: Callable[[], bool], within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while not found() and time.monotonic() < end:
        time.sleep(0.02)
    return found()


def test_a_body_that_does_not_come_is_no_request(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.http.body._WITHIN_S", 0.2)
    with gateway(tmp_path, bundle, stand_in) as url, socket.socket() as client:
        client.connect(("127.0.0.1", int(httpx.URL(url).port or 0)))
        client.settimeout(10)
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: here\r\ncontent-length: 100\r\n\r\n{")
        came = b"".join(iter(lambda: client.recv(65_536), b""))  # until it is closed
    head, _, body = came.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"]["message"] == "body: did not come within 0.2 s; send it again"


def test_a_client_that_leaves_a_stream_ends_the_providers_call_and_pays_for_what_came(
    through: OpenAI, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.between_s = 0.05
    stream = ask(through, stream=True)
    for _, _ in zip(range(6), stream, strict=False):
        pass
    stream.close()
    left = time.monotonic()
    assert eventually(lambda: stand_in.left == 1)
    assert time.monotonic() - left < 1
    assert eventually(lambda: events(tmp_path)[0].status == "cancelled")
    (event,) = events(tmp_path)
    assert event.usage is not None
    assert event.usage_estimated
    assert 1 <= (event.usage.output_tokens or 0) <= 30


def test_a_client_that_leaves_before_the_answer_ends_the_providers_call(
    through: OpenAI, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.latency_s = 5
    with pytest.raises(openai.APITimeoutError):
        ask(through.with_options(timeout=0.3))
    assert eventually(lambda: stand_in.left == 1)
    assert eventually(lambda: events(tmp_path)[0].status == "cancelled")
    assert events(tmp_path)[0].cost is None


def test_while_the_ledger_cannot_be_written_no_call_is_made(tmp_path: Path, bundle: Bundle, stand_in: StandIn) -> None:
    (tmp_path / "ledger.db").mkdir()
    with (
        gateway(tmp_path, bundle, stand_in) as url,
        client_of(url) as client,
        pytest.raises(openai.InternalServerError, match="ledger") as raised,
    ):
        ask(client)
    assert raised.value.status_code == 503
    assert stand_in.attempts.total() == 0


def test_every_fault_is_told_of_here() -> None:
    told = {*RETRIED, *BROKEN, "bad_request", "echo_key", "hang"}
    assert told == set(FAULTS)


def test_an_upstream_that_is_not_there_is_said_to_be_so(tmp_path: Path, bundle: Bundle, stand_in: StandIn) -> None:
    nowhere = {"name": "nowhere", "base_url": "http://127.0.0.1:9/v1"}
    with gateway(tmp_path, bundle, stand_in, upstream=nowhere) as url:
        answer = httpx.post(f"{url}/chat/completions", json={"model": "small", "messages": SAID}, trust_env=False)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_unreachable"
    assert "127.0.0.1:9" not in answer.text
    assert [event.cost.pico_usd for event in events(tmp_path) if event.cost] == [0, 0]
