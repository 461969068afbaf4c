"""Streams as they pass: cut into events at any byte, read, and never a crash whatever a provider sends."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.answer_stream import AnswerStream
from serving.errors import UpstreamError
from serving.upstream.breaker import Breakers
from serving.upstream.events import Events, Seen
from tests.stand_in.answers import answer
from tests.stand_in.forms import chat_chunks, response_events

FOUND = answer({"model": "small"}, [{"role": "user", "content": "Is it due?"}])
CHAT = [*(json.dumps(one) for one in chat_chunks(FOUND, logprobs=False, usage=True)), "[DONE]"]
RESPONSE = [json.dumps(one) for one in response_events(FOUND)]


def written(data: list[str], end: str = "\n") -> bytes:
    return "".join(f"data: {one}{end}{end}" for one in data).encode()


def cut(stream: bytes, size: int) -> list[bytes]:
    return [stream[i : i + size] for i in range(0, len(stream), size)]


def read(chunks: list[bytes]) -> Seen:
    events, seen = Events(), Seen()
    for chunk in chunks:
        for event in events.feed(chunk):
            seen.take(event)
    return seen


def read_or_refused(chunks: list[bytes]) -> Seen:
    """What is seen, or nothing of a stream that is none; any other error is a crash."""
    with contextlib.suppress(UpstreamError):
        return read(chunks)
    return Seen()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 10**6])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_wherever_a_stream_is_cut_the_same_is_seen(size: int, end: str) -> None:
    seen = read(cut(written(CHAT, end), size))
    assert (seen.id, seen.model, seen.finished, seen.ended) == (f"chatcmpl-{FOUND.id}", "small", True, True)
    assert "".join(seen.text) == FOUND.choices[0].text
    assert seen.usage is not None
    assert seen.usage["completion_tokens"] == FOUND.completion_tokens


def test_the_responses_api_tells_the_same_at_its_end() -> None:
    seen = read([written(RESPONSE)])
    assert (seen.id, seen.ended, seen.failed) == (f"resp_{FOUND.id}", True, False)
    assert "".join(seen.text) == FOUND.choices[0].text
    assert seen.usage is not None
    assert seen.usage["output_tokens"] == FOUND.completion_tokens


def test_a_long_piece_of_a_response_is_read_whole() -> None:
    piece = "word " * 200
    seen = read([written([json.dumps({"type": "response.output_text.delta", "delta": piece})])])
    assert seen.text == [piece]


def test_every_byte_of_a_stream_is_in_an_event_or_left_over() -> None:
    events, stream = Events(), b": a comment\n\n" + written(CHAT) + b"data: half"
    passed = b"".join(event for chunk in cut(stream, 11) for event in events.feed(chunk))
    assert passed + events._pending == stream
    assert events._pending == b"data: half"


def test_an_endless_event_is_refused() -> None:
    with pytest.raises(UpstreamError, match="is larger than"):
        read([b"x" * 1024**2] * 20)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_any_bytes_are_read_or_refused(chunks: list[bytes]) -> None:
    read_or_refused(chunks)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ("id", "model", "choices", "delta", "usage", "type", "response", "content", "tool_calls", "function", "error")
    ), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(JSON, max_size=6))
def test_events_of_any_shape_are_read_or_refused(said: list[Any]) -> None:
    seen = read_or_refused([written([json.dumps(one) for one in said])])
    assert all(isinstance(text, str) for text in seen.text)
    assert seen.usage is None or isinstance(seen.usage, dict)


class Booked:
    """Keeps what an answer came to, in place of the ledger."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str | None]] = []

    def answered(self, _attempt: object, _seen: Seen, status: str = "ok", error: str | None = None) -> "Booked":
        self.said.append((status, error))
        return self

    async def on_disk(self) -> None:
        """At once."""


async def arriving(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def passed(chunks: list[bytes], booked: Booked, **changes: Any) -> bytes:
    told: dict[str, Any] = {"mask": bytes, "shows_usage": True, "named_events": False}

    async def run() -> bytes:
        stream = AnswerStream(
            booked, None, Breakers(5, 1, 1).admit("m"), arriving(chunks), AsyncExitStack(), **told | changes
        )  # type: ignore
        came = b"".join([part async for part in stream])
        await stream.close()
        return came

    return asyncio.run(run())


@pytest.mark.parametrize("size", [1, 5, 10**6])
def test_a_stream_is_passed_on_byte_for_byte_and_booked_once(size: int) -> None:
    booked = Booked()
    assert passed(cut(written(CHAT), size), booked) == written(CHAT)
    assert booked.said == [("ok", None)]


def test_usage_that_was_not_asked_for_is_the_only_event_left_out() -> None:
    assert passed([written(CHAT)], Booked(), shows_usage=False) == written([*CHAT[:-2], CHAT[-1]])


def test_a_key_is_masked_wherever_the_stream_is_cut() -> None:
    stream = written(['{"choices": [], "note": "sk-secret-key"}', *CHAT])
    came = passed(cut(stream, 3), Booked(), mask=lambda event: event.replace(b"sk-secret-key", b"[key]"))
    assert came == stream.replace(b"sk-secret-key", b"[key]")


def test_a_provider_without_a_done_event_has_ended_when_its_answer_has() -> None:
    booked = Booked()
    assert passed([written(CHAT[:-1])], booked) == written(CHAT[:-1])
    assert booked.said == [("ok", None)]


def test_an_error_of_the_provider_in_mid_stream_is_passed_on_and_booked() -> None:
    booked = Booked()
    stream = written([*CHAT[:5], '{"error": {"message": "overloaded"}}'])
    assert passed([stream], booked) == stream
    assert booked.said == [("error", None)]
