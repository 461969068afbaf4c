"""A server that ends a request in the very moment in which its answer begins."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from serving.completion import Reply
from serving.deciding import Decider
from serving.http.auth import KEY_IN_SCOPE
from serving.http.openai import OpenAIResource
from serving.settings import Settings


class Stream:
    """As an `AnswerStream`, of nothing."""

    closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"data: [DONE]\n\n"

    async def close(self) -> None:
        self.closed = True


class EndsTheRequest:
    """Completions that end the request they are asked by as they answer it."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream
        self.request: asyncio.Task[None] | None = None

    async def reply(self, _job: object) -> Reply:
        await asyncio.sleep(0.01)
        assert self.request is not None
        self.request.cancel()
        return Reply(200, "text/event-stream", {}, b"", self.stream)  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [Stream(), None])
def test_a_stream_that_has_just_begun_is_closed(tmp_path: Path, stream: Stream | None) -> None:
    completions = EndsTheRequest(stream)
    decider: Decider = None  # type: ignore[assignment]  # a model by its name is not decided
    resource = OpenAIResource(completions, decider, None, Settings(home=tmp_path))  # type: ignore[arg-type]
    app = Starlette(routes=resource.routes())
    came = [{"type": "http.request", "body": json.dumps({"model": "small", "messages": []}).encode()}]
    scope: dict[str, Any] = {
        "type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [], "query_string": b"",
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        KEY_IN_SCOPE: None,
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return came.pop() if came else await asyncio.Future()  # a client that stays

    async def send(_message: object) -> None:
        raise AssertionError("nothing is sent any more")

    async def run() -> None:
        completions.request = asyncio.ensure_future(app(scope, receive, send))  # type: ignore[arg-type]
        with contextlib.suppress(asyncio.CancelledError):
            await completions.request
        assert completions.request.cancelled()

    asyncio.run(run())
    assert stream is None or stream.closed
