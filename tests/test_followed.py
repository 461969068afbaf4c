"""What is logged, counted and traced of a request: who answered, when, at which cost; and nothing that was said."""

import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from serving.classifier.bundle import Bundle
from serving.errors import ConfigurationError
from serving.http.tracing import Tracing, tracing
from tests.gateway import MODELS, client_of, gateway
from tests.stand_in.server import StandIn
from tests.test_gateway import ask

SECRET = "xylophone-4711"
SAID = [{"role": "user", "content": f"Is the {SECRET} invoice due?"}]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """The lines of JSON so far."""
    caplog.set_level(logging.INFO, "tierwise.requests")

    def found() -> list[dict[str, Any]]:
        return [json.loads(one.message) for one in caplog.records if one.name == "tierwise.requests"]

    yield found
    assert SECRET not in caplog.text


def settled(lines: Any, count: int) -> list[dict[str, Any]]:
    """The lines, once there are as many: a client has its answer a moment before."""
    end = time.monotonic() + 5
    while len(lines()) < count and time.monotonic() < end:
        time.sleep(0.01)
    found: list[dict[str, Any]] = lines()
    assert len(found) == count, found
    return found


def test_a_call_is_one_line_with_ids_times_tokens_and_cost(through: OpenAI, lines: Any) -> None:
    raw = through.chat.completions.with_raw_response.create(model="auto", messages=SAID, user=SECRET)  # type: ignore
    answer = raw.parse()
    (line,) = settled(lines, 1)
    assert answer.usage is not None
    assert (line["endpoint"], line["status"], line["attempts"], line["outcome"]) == (
        "/v1/chat/completions", 200, 1, "ok",
    )  # fmt: skip
    assert line["completion_id"] == answer.id
    assert line["decision_id"] == raw.headers["x-tierwise-decision"]
    assert (line["input_tokens"], line["output_tokens"]) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert line["cost_usd"] == raw.headers["x-tierwise-cost-usd"]
    assert 0 < line["first_byte_ms"] <= line["latency_ms"]
    assert "error" not in line


def test_a_streams_line_comes_at_its_end_with_its_tokens(through: OpenAI, lines: Any) -> None:
    list(ask(through, model="auto", messages=SAID, stream=True))
    (line,) = settled(lines, 1)
    assert line["output_tokens"] > 0
    assert line["tier"] in ("economy", "standard", "premium")


def test_attempts_that_failed_are_counted_with_what_they_cost(tmp_path: Path, bundle: Bundle, lines: Any) -> None:
    stand_in = StandIn(models=MODELS)
    stand_in.plan.order("small", "server_error")
    with gateway(tmp_path, bundle, stand_in) as url, client_of(url) as through:
        ask(through, messages=SAID)
        with pytest.raises(openai.NotFoundError):
            ask(through, model="absent", messages=SAID)
        metrics = httpx.get(url.removesuffix("/v1") + "/metrics", trust_env=False).text
    one, other = settled(lines, 2)
    assert (one["attempts"], one["outcome"]) == (2, "ok")
    assert (other["status"], other["error"], other["attempts"]) == (404, "status_404", 1)
    for outcome in ("status_5xx", "ok"):
        assert re.search(rf'tierwise_upstream_attempts_total{{outcome="{outcome}",tier="economy"}} 1\.0', metrics)
    assert SECRET not in metrics


def test_a_decision_without_a_call_and_a_refusal_are_lines_too(through: OpenAI, lines: Any) -> None:
    url = str(through.base_url).removesuffix("/v1/")
    with httpx.Client(trust_env=False) as plain:
        decision = plain.post(f"{url}/route", json={"messages": SAID}).json()
        plain.post(f"{url}/route", json={"messages": SECRET})
        plain.get(f"{url}/status")
    one, other = settled(lines, 2)
    assert (one["decision_id"], one["tier"], one["reason"]) == (decision["id"], decision["tier"], decision["reason"])
    assert (other["status"], "decision_id" in other) == (400, False)


def test_a_defect_is_told_apart_from_a_client_that_left(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No input is known that ends in a defect.
    monkeypatch.setattr("serving.http.openai.read_job", lambda *_: 1 / 0)
    with gateway(tmp_path, bundle, stand_in) as url, client_of(url) as through:
        with pytest.raises(openai.InternalServerError) as defect:
            ask(through, messages=SAID)
        assert defect.value.response.headers["connection"] == "close"
        stand_in.latency_s = 5
        monkeypatch.undo()
        with pytest.raises(openai.APITimeoutError):
            ask(through.with_options(timeout=0.3), messages=SAID)
        assert [line["status"] for line in settled(lines, 2)] == [500, 499]


def test_nothing_is_written_where_that_is_not_wanted(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn, lines: Any
) -> None:
    with gateway(tmp_path, bundle, stand_in, log_requests=False) as url, client_of(url) as through:
        ask(through, messages=SAID)
        ask(through, messages=SAID)
    assert lines() == []


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(exporter: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider.get_tracer("test"), provider.shutdown)


def test_an_attempt_is_a_span_below_that_of_its_request_in_the_callers_trace(
    tmp_path: Path, bundle: Bundle, traces: Tracing, exporter: InMemorySpanExporter
) -> None:
    stand_in = StandIn(models=MODELS)
    stand_in.plan.order("small", "server_error")
    trace = "0af7651916cd43dd8448eb211c80319c"
    with gateway(tmp_path, bundle, stand_in, traces=traces) as url, client_of(url) as through:
        answer = ask(through, messages=SAID, extra_headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    failed, answered, request = exporter.get_finished_spans()
    assert [span.name for span in (failed, answered, request)] == [
        "chat small", "chat small", "POST /v1/chat/completions",
    ]  # fmt: skip
    assert [span.kind for span in (failed, answered, request)] == [SpanKind.CLIENT, SpanKind.CLIENT, SpanKind.SERVER]
    assert {span.context.trace_id for span in (failed, answered, request)} == {int(trace, 16)}
    assert parent_of(failed) == parent_of(answered) == request.context.span_id
    assert parent_of(request) == 0xB7AD6B7169203331
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "status_500"
    assert answered.attributes is not None
    assert answered.attributes["gen_ai.response.id"] == answer.id
    assert answered.attributes["gen_ai.usage.output_tokens"] == answer.usage.completion_tokens
    assert request.start_time <= failed.start_time <= answered.start_time <= answered.end_time <= request.end_time
    assert SECRET not in "".join(span.to_json() for span in exporter.get_finished_spans())


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def test_a_trace_that_is_none_begins_a_new_one(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn, traces: Tracing, exporter: InMemorySpanExporter
) -> None:
    with gateway(tmp_path, bundle, stand_in, traces=traces) as url, client_of(url) as through:
        ask(through, model="auto", messages=SAID, extra_headers={"traceparent": "00-zz-;"})
    _, request = exporter.get_finished_spans()
    assert request.parent is None
    assert request.attributes is not None
    assert str(request.attributes["tierwise.decision.id"]).startswith("dec-")


def test_traces_are_made_where_an_exporter_is_named_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracing() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match=r"pip install 'tierwise\[otel\]'"):
        tracing()
