"""OpenAI's API: what a client finds that was pointed here, and changed in nothing else."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from serving.answer_stream import AnswerStream
from serving.completion import Completions, Reply
from serving.deciding import AUTO, Decider
from serving.http.auth import key_of
from serving.http.body import as_object, read_json
from serving.http.openai_job import read_job
from serving.job import Path
from serving.settings import Settings
from serving.upstream.attempt import Upstreams

_PATHS: Final[tuple[Path, ...]] = ("/chat/completions", "/responses", "/embeddings")


class OpenAIResource:
    """Handlers of `/v1/…`, as OpenAI's."""

    def __init__(self, completions: Completions, decider: Decider, upstreams: Upstreams, settings: Settings) -> None:
        self._completions = completions
        self._decider = decider
        self._upstreams = upstreams
        self._limit = settings.max_request_bytes
        self._aliases = settings.aliases

    def routes(self) -> list[Route]:
        """The routes of this resource."""
        calls = [Route(f"/v1{path}", self._handler(path), methods=["POST"]) for path in _PATHS]
        return [*calls, Route("/v1/models", self.models, methods=["GET"])]

    async def models(self, request: Request) -> Response:
        """What the caller can ask for: `auto`, aliases, the ladder's models and those that upstreams list."""
        ladder = [model for tier in self._decider.router.tiers for model in tier.models]
        served = [model for model in ladder if self._upstreams.of(model) is not None]
        key = key_of(request)
        allowed = None if key is None else key.models
        names = [
            name
            for name in dict.fromkeys([AUTO, *self._aliases, *served, *self._upstreams.models])
            if allowed is None or name in allowed
        ]
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "tierwise"} for name in names]
        return JSONResponse({"object": "list", "data": data})

    def _handler(self, path: Path) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            payload = as_object(await read_json(request, self._limit), where="body", holding="a `model`")
            job = read_job(path, payload, request.headers, key_of(request), self._decider, self._aliases)
            reply = await _unless_gone(request, self._completions.reply(job))
            if reply.stream is not None:
                return _Streamed(reply.stream, reply.status, reply.content_type, reply.headers)
            return Response(reply.body, reply.status, dict(reply.headers), reply.content_type)

        return handle


async def _unless_gone(request: Request, answer: Awaitable[Reply]) -> Reply:
    """The answer, which is cancelled when the client goes. Raises ClientDisconnect then."""
    answering = asyncio.ensure_future(answer)
    going = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({answering, going}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
    except BaseException:
        await _dropped(answering)
        raise
    finally:
        going.cancel()
    return answering.result()


async def _dropped(answering: asyncio.Future[Reply]) -> None:
    """End the call, or the stream of one that has just been answered."""
    answering.cancel()
    await asyncio.wait({answering})
    if answering.cancelled() or answering.exception() is not None:
        return
    if (stream := answering.result().stream) is not None:
        await stream.close()


async def _gone(receive: Receive) -> None:
    """Done when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


class _Streamed(Response):
    """Sends a stream until its end, or until the client goes."""

    def __init__(self, stream: AnswerStream, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        super().__init__(None, status, {**headers, "cache-control": "no-cache"}, content_type)
        del self.headers["content-length"]
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 -- as ASGI has it
        sending = asyncio.ensure_future(self._send(send))
        going = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, going}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, going):
                task.cancel()
            try:
                await asyncio.wait({sending, going})
            finally:
                await self._stream.close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for part in self._stream:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
