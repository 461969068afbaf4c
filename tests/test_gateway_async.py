"""The official async client, through the service and straight to the provider: the same answers and the same errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from serving.classifier.bundle import Bundle
from tests.gateway import MODELS, gateway
from tests.stand_in.faults import Fault
from tests.stand_in.server import StandIn, running
from tests.test_gateway import ASKED, dumped, events
from tests.test_gateway_faults import eventually
from tests.test_stand_in import SAID, TOOL, Bill

OTHER_TOOL = {**TOOL, "function": {**TOOL["function"], "name": "send_mail"}}  # type: ignore[dict-item]
CASES: tuple[dict[str, Any], ...] = (
    *ASKED,
    {"messages": [{"role": "user", "content": "use look_up and send_mail"}], "tools": [TOOL, OTHER_TOOL]},
)
ERRORS: dict[Fault, type[openai.APIStatusError]] = {
    "rate_limited": openai.RateLimitError, "overloaded": openai.InternalServerError,
    "server_error": openai.InternalServerError, "bad_request": openai.BadRequestError,
    "echo_key": openai.AuthenticationError,
}  # fmt: skip


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[AsyncOpenAI]:
    http = httpx.AsyncClient(trust_env=False)
    async with AsyncOpenAI(base_url=url, api_key="tw-any", max_retries=0, timeout=20, http_client=http) as client:
        yield client


async def said(client: AsyncOpenAI, changes: dict[str, Any], *, stream: bool) -> Any:
    """What comes, but for what no two answers share."""
    found = await client.chat.completions.create(**{"model": "small", "messages": SAID, "stream": stream, **changes})
    return dumped([chunk async for chunk in found] if stream else found)


def on_both(through: str, straight: str, ask: Callable[[AsyncOpenAI], Awaitable[Any]]) -> tuple[Any, Any]:
    """What the same question gives through the service and straight at the provider."""

    async def asked(url: str) -> Any:
        async with client_of(url) as client:
            return await ask(client)

    async def both() -> tuple[Any, Any]:
        return await asked(through), await asked(straight)

    return asyncio.run(both())


def test_many_questions_at_once_have_the_answers_of_the_provider(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn
) -> None:
    async def all_of_them(client: AsyncOpenAI) -> list[Any]:
        return await asyncio.gather(
            *[said(client, changes, stream=stream) for changes in CASES for stream in (False, True)]
        )

    with gateway(tmp_path, bundle, stand_in) as url, running(StandIn(models=MODELS)) as straight:
        found, expected = on_both(url, straight, all_of_them)
    assert found == expected
    assert len(found[-2]["choices"][0]["message"]["tool_calls"]) == 2
    assert {event.status for event in events(tmp_path)} == {"ok"}


def test_structured_outputs_and_the_responses_api_are_parsed_alike(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn
) -> None:
    async def parsed(client: AsyncOpenAI) -> list[Any]:
        chat = await client.chat.completions.parse(model="small", messages=SAID, response_format=Bill)  # type: ignore
        whole = await client.responses.parse(model="small", input="Is it due?", text_format=Bill)
        async with client.responses.stream(model="small", input="Is it due?") as stream:
            streamed = await stream.get_final_response()
        embedded = await client.embeddings.create(model="other", input=["a", "b"])
        return [chat.choices[0].message.parsed, whole.output_parsed, streamed.output_text, embedded.data]

    with gateway(tmp_path, bundle, stand_in) as url, running(StandIn(models=MODELS)) as straight:
        found, expected = on_both(url, straight, parsed)
    assert found == expected
    assert isinstance(found[0], Bill)


@pytest.mark.parametrize(("fault", "error"), ERRORS.items())
def test_an_error_of_the_provider_is_raised_as_if_it_were_asked_itself(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn, fault: Fault, error: type[openai.APIStatusError]
) -> None:
    other = StandIn(models=MODELS)
    for provider in (stand_in, other):
        provider.plan.order("small", fault, fault)

    async def raised(client: AsyncOpenAI) -> tuple[int, object]:
        with pytest.raises(error) as found:
            await said(client, {}, stream=False)
        return found.value.status_code, None if fault == "echo_key" else found.value.body

    with gateway(tmp_path, bundle, stand_in) as url, running(other) as straight:
        found, expected = on_both(url, straight, raised)
    assert found == expected


@pytest.mark.parametrize("stream", [False, True])
def test_a_task_that_is_cancelled_ends_the_providers_call_within_a_second(
    tmp_path: Path, bundle: Bundle, stream: bool
) -> None:
    stand_in = StandIn(models=MODELS, latency_s=0.0 if stream else 30.0, between_s=0.5)

    async def cancelled(url: str) -> None:
        async with client_of(url) as client:
            asking = asyncio.ensure_future(said(client, {}, stream=stream))
            await asyncio.sleep(1.2)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    with gateway(tmp_path, bundle, stand_in) as url:
        asyncio.run(cancelled(url))
        assert eventually(lambda: stand_in.left == 1, 1.0)
        assert eventually(lambda: [event.status for event in events(tmp_path)] == ["cancelled"], 1.0)
