"""The stand-in provider, asked by the official client: the form of its answers, and each of its faults."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.stand_in.answers import answer
from tests.stand_in.faults import FAULTS, Fault, Plan
from tests.stand_in.server import SERVER, StandIn, running

SAID = [{"role": "user", "content": "Is the invoice due?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
    },
}


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def url(stand_in: StandIn) -> Iterator[str]:
    with running(stand_in) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    http = httpx.Client(trust_env=False)
    with OpenAI(base_url=url, api_key="sk-made-up", max_retries=0, timeout=5, http_client=http) as client:
        yield client


def ask(client: OpenAI, **changes: Any) -> Any:
    return client.chat.completions.create(**{"model": "small", "messages": SAID, **changes})


def test_it_says_that_it_is_one(client: OpenAI, url: str) -> None:
    assert ask(client).system_fingerprint == "stand-in, no model"
    assert {model.owned_by for model in client.models.list()} == {"stand-in"}
    assert httpx.get(f"{url}/models", trust_env=False).headers["server"] == SERVER


def test_the_same_request_gets_the_same_answer_and_another_another(client: OpenAI) -> None:
    first, again, other = ask(client), ask(client), ask(client, seed=7)
    assert first.choices == again.choices
    assert first.id != again.id
    assert first.choices != other.choices
    assert [choice.index for choice in ask(client, n=3).choices] == [0, 1, 2]


def test_a_stream_says_what_the_whole_answer_says(client: OpenAI, stand_in: StandIn) -> None:
    whole = ask(client, logprobs=True)
    chunks = list(ask(client, logprobs=True, stream=True, stream_options={"include_usage": True}))
    said = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in said) == whole.choices[0].message.content
    assert said[-1].finish_reason == whole.choices[0].finish_reason == "stop"
    assert sum(len(choice.logprobs.content) for choice in said if choice.logprobs) == len(
        whole.choices[0].logprobs.content
    )
    assert chunks[-1].usage == whole.usage
    assert stand_in.sent_tokens["small"] == whole.usage.completion_tokens
    assert stand_in.completion_tokens["small"] == 2 * whole.usage.completion_tokens


def test_an_answer_is_cut_at_the_limit(client: OpenAI) -> None:
    found = ask(client, max_completion_tokens=5)
    assert (found.choices[0].finish_reason, found.usage.completion_tokens) == ("length", 5)


def test_tools_that_are_named_are_called_with_arguments_that_fit(client: OpenAI) -> None:
    text = [{"role": "user", "content": "use look_up and then look_at"}]
    other = {"type": "function", "function": {**TOOL["function"], "name": "look_at"}}  # type: ignore[dict-item]
    whole = ask(client, messages=text, tools=[TOOL, other])
    calls = whole.choices[0].message.tool_calls
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("look_up", '{"id": 7}'), ("look_at", '{"id": 7}'),
    ]  # fmt: skip
    assert (
        len(ask(client, messages=text, tools=[TOOL, other], parallel_tool_calls=False).choices[0].message.tool_calls)
        == 1
    )
    arguments = ["", ""]
    for chunk in ask(client, messages=text, tools=[TOOL, other], stream=True):
        for call in chunk.choices[0].delta.tool_calls or ():
            arguments[call.index] += call.function.arguments
    assert arguments == ['{"id": 7}', '{"id": 7}']
    assert ask(client, tools=[TOOL]).choices[0].finish_reason == "stop"


class Bill(BaseModel):
    """What is asked for as structured output."""

    number: int
    names: list[str]
    paid: bool | None


def test_json_fits_the_schema_that_was_asked_for(client: OpenAI) -> None:
    found = client.chat.completions.parse(model="small", messages=SAID, response_format=Bill)  # type: ignore[arg-type]
    assert found.choices[0].message.parsed == Bill(number=7, names=["made up"], paid=True)


def test_the_responses_api_whole_and_as_a_stream(client: OpenAI) -> None:
    whole = client.responses.create(model="small", input="Is the invoice due?")
    with client.responses.stream(model="small", input="Is the invoice due?") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == whole.output_text == text
    assert whole.usage is not None
    called = client.responses.create(
        model="small",
        input="use look_up",
        tools=[{"type": "function", "strict": True, **TOOL["function"]}],  # type: ignore
    )
    assert [(item.type, item.arguments) for item in called.output] == [("function_call", '{"id": 7}')]  # type: ignore


def test_embeddings_follow_from_the_text(client: OpenAI) -> None:
    found = client.embeddings.create(model="small", input=["one", "two", "one"])
    assert found.data[0].embedding == found.data[2].embedding != found.data[1].embedding
    plain = client.embeddings.create(model="small", input="one", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(found.data[0].embedding, abs=1e-6)


REFUSED = (
    ({"model": "huge"}, openai.NotFoundError), ({"messages": []}, openai.BadRequestError),
    ({"temperature": 3}, openai.BadRequestError),
)  # fmt: skip


@pytest.mark.parametrize(("changes", "error"), REFUSED)
def test_what_openai_refuses_it_refuses_alike(client: OpenAI, changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        ask(client, **changes)


def test_a_wrong_key_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        ask(client.with_options(api_key="wrong"))


WHOLE = {
    "rate_limited": openai.RateLimitError, "overloaded": openai.InternalServerError, "hang": openai.APITimeoutError,
    "server_error": openai.InternalServerError, "bad_request": openai.BadRequestError, "not_json": json.JSONDecodeError,
    "echo_key": openai.AuthenticationError, "reset": openai.APIConnectionError,
    "reset_midway": openai.APIConnectionError, "html": None, "silent_end": None, "malformed_event": None,
}  # fmt: skip
STREAMED = WHOLE | {"not_json": None, "malformed_event": json.JSONDecodeError}
EVENTS = answer({"model": "small"}, SAID).completion_tokens + 2
"""Of a stream: tokens between the role and how it ended."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stream", [False, True])
def test_each_fault_happens_once_and_is_counted(client: OpenAI, stand_in: StandIn, fault: Fault, stream: bool) -> None:
    stand_in.plan.order("small", fault)
    came = 0
    with contextlib.ExitStack() as expected:
        if (error := (STREAMED if stream else WHOLE)[fault]) is not None:
            expected.enter_context(pytest.raises(error))
        found = ask(client.with_options(timeout=0.5), stream=stream)
        for _ in found if stream else ():
            came += 1
    ended_early = fault in ("reset_midway", "silent_end", "malformed_event")
    left_alone = fault in (("not_json",) if stream else ("silent_end", "malformed_event"))
    assert came == (0 if not stream else EVENTS // 2 if ended_early else EVENTS if left_alone else 0)
    assert stand_in.answered["small"] == left_alone
    assert stand_in.attempts["small"] == 1
    assert ask(client).choices[0].finish_reason == "stop"
    end = time.monotonic() + 5
    while fault == "hang" and not stand_in.left and time.monotonic() < end:
        time.sleep(0.01)
    assert stand_in.left == 1 or fault != "hang"


def test_a_share_of_faults_is_drawn_alike_from_the_same_seed() -> None:
    found, again = ([plan.next("small") for _ in range(1_000)] for plan in (Plan(share=0.3), Plan(share=0.3)))
    assert found == again
    assert 230 < sum(fault is not None for fault in found) < 370
