"""The stand-in's HTTP server, and what it counts of what it was asked and what it sent."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from tests.stand_in.answers import Answer, answer
from tests.stand_in.faults import Fault, Plan
from tests.stand_in.forms import chat, chat_chunks, embedding, response, response_events
from tests.stand_in.poor import Poor, spoiled

SERVER: Final = "stand-in (no model answers here)"
_MOST_CHOICES: Final = 16
_RETRY_AFTER_S: Final = 0.05
_HANG_S: Final = 60.0
_REFUSED: Final[dict[str, tuple[int, str, str]]] = {
    "rate_limited": (429, "requests", "rate_limit_exceeded"),
    "overloaded": (503, "server_error", "overloaded"),
    "server_error": (500, "server_error", "server_error"),
    "bad_request": (400, "invalid_request_error", "invalid_value"),
    "echo_key": (401, "invalid_request_error", "invalid_api_key"),
}


@dataclass
class StandIn:
    """Settings and counts of one. latency_s: until the first byte; between_s: from event to event of a stream.

    poor: by model, how its next whole answers are no good. attempts: requests by model; answered: those that were
    answered whole; prompt_tokens, completion_tokens: of these; sent_tokens: events of streams that carried a token, of
    broken ones too. asked: the last bodies, as they came.
    """

    models: tuple[str, ...] = ("small", "medium", "large")
    latency_s: float = 0.0
    between_s: float = 0.0
    plan: Plan = field(default_factory=Plan)
    poor: dict[str, list[Poor]] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    prompt_tokens: Counter[str] = field(default_factory=Counter)
    completion_tokens: Counter[str] = field(default_factory=Counter)
    sent_tokens: Counter[str] = field(default_factory=Counter)
    left: int = 0
    """Clients that went before they had their answer."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keep_asked: int = 100

    def application(self) -> web.Application:
        """The server, to be run."""
        app = web.Application(client_max_size=64 * 1024**2)
        app.add_routes([
            web.get("/v1/models", self._models),
            web.post("/v1/chat/completions", self._chat),
            web.post("/v1/responses", self._responses),
            web.post("/v1/embeddings", self._embeddings),
            web.get("/counts", self._counts),
        ])  # fmt: skip
        app.on_response_prepare.append(_sign)
        return app

    async def _models(self, request: web.Request) -> web.Response:
        if request.headers.get("authorization") == "Bearer wrong":
            return _error(401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key")
        data = [{"id": model, "object": "model", "created": 0, "owned_by": "stand-in"} for model in self.models]
        return web.json_response({"object": "list", "data": data})

    async def _counts(self, _request: web.Request) -> web.Response:
        names = ("attempts", "answered", "prompt_tokens", "completion_tokens", "sent_tokens")
        return web.json_response({name: dict(getattr(self, name)) for name in names} | {"left": self.left})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await self._read(request)
        messages, logprobs = asked.get("messages"), bool(asked.get("logprobs"))
        if not isinstance(messages, list) or not messages:
            return _error(400, "messages: must be a list with at least one message", "invalid_request_error")
        found = self._made(asked, messages)
        options = asked.get("stream_options")
        usage = isinstance(options, dict) and bool(options.get("include_usage"))
        whole = chat(found, logprobs=logprobs)
        events = chat_chunks(found, logprobs=logprobs, usage=usage) if asked.get("stream") else None
        return await self._answer(request, asked["model"], whole, events, named=False)

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        asked = await self._read(request)
        given = asked.get("input")
        messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
        if not isinstance(messages, list) or not messages:
            return _error(400, "input: must be a text or a list", "invalid_request_error")
        found = self._made(asked | {"n": 1}, messages)
        events = response_events(found) if asked.get("stream") else None
        return await self._answer(request, asked["model"], response(found), events, named=True)

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        asked = await self._read(request)
        texts = [asked["input"]] if isinstance(asked.get("input"), str) else asked.get("input")
        if not isinstance(texts, list) or not texts:
            return _error(400, "input: must be a text or a list", "invalid_request_error")
        form = asked.get("encoding_format") or "float"
        data = [
            {"object": "embedding", "index": i, "embedding": embedding(str(text), form)} for i, text in enumerate(texts)
        ]
        tokens = sum(len(str(text)) // 4 + 1 for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        whole = {"object": "list", "data": data, "model": asked["model"], "usage": usage}
        return await self._answer(request, asked["model"], whole, None, named=False)

    async def _read(self, request: web.Request) -> dict[str, Any]:
        """The body. Raises what OpenAI would answer to a wrong key, body or model."""
        if request.headers.get("authorization", "") in ("", "Bearer wrong"):
            raise web.HTTPUnauthorized(
                **_refusal("Incorrect API key provided.", "invalid_request_error", "invalid_api_key")
            )
        try:
            asked = json.loads(await request.read())
        except ValueError:
            raise web.HTTPBadRequest(**_refusal("We could not parse the JSON body.", "invalid_request_error")) from None
        self.asked = [*self.asked[1 - self.keep_asked :], asked] if self.keep_asked else []
        model = asked.get("model") if isinstance(asked, dict) else None
        if model not in self.models:
            text = f"The model {model!r} does not exist."
            raise web.HTTPNotFound(**_refusal(text, "invalid_request_error", "model_not_found"))
        if not isinstance(asked.get("temperature", 1), int | float) or not 0 <= asked.get("temperature", 1) <= 2:
            raise web.HTTPBadRequest(**_refusal("temperature: must be from 0 to 2", "invalid_request_error"))
        return dict(asked)

    def _made(self, asked: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Answer:
        """Raises what OpenAI would answer to a request that makes no sense."""
        try:
            if not 1 <= (asked.get("n") or 1) <= _MOST_CHOICES:
                raise ValueError(f"n: must be from 1 to {_MOST_CHOICES}")
            return answer(asked, messages, self.attempts.total())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            text = f"makes no sense here: {type(error).__name__}"
            raise web.HTTPBadRequest(**_refusal(text, "invalid_request_error")) from None

    async def _answer(
        self,
        request: web.Request,
        model: str,
        whole: Mapping[str, Any],
        events: Iterator[dict[str, Any]] | None,
        *,
        named: bool,
    ) -> web.StreamResponse:
        """named: whether each event tells its type on a line of its own, as the Responses API does."""
        self.attempts[model] += 1
        fault = self.plan.next(model)
        try:
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            if (early := await self._fail_early(request, fault)) is not None:
                return early
            if events is not None:
                return await self._stream(request, model, whole, events, fault, named=named)
            if fault in ("not_json", "reset_midway"):
                return await _half(request, json.dumps(whole).encode(), abort=fault == "reset_midway")
            if waiting := self.poor.get(model):
                whole = spoiled(whole, waiting.pop(0))
            self._count(model, whole)
            return web.json_response(whole)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left += fault not in ("reset", "reset_midway")
            raise asyncio.CancelledError from None  # which the server ends in silence

    async def _fail_early(self, request: web.Request, fault: Fault | None) -> web.Response | None:
        if fault in _REFUSED:
            status, kind, code = _REFUSED[fault]
            key = request.headers.get("authorization", "") if fault == "echo_key" else ""
            return _error(status, f"made to fail: {fault} {key}".strip(), kind, code)
        if fault == "html":
            return web.Response(text="<html><body><h1>Bad gateway</h1></body></html>", content_type="text/html")
        if fault == "hang":
            await asyncio.sleep(_HANG_S)
        if fault == "reset":
            _abort(request)
        return None

    async def _stream(
        self,
        request: web.Request,
        model: str,
        whole: Mapping[str, Any],
        events: Iterable[dict[str, Any]],
        fault: Fault | None,
        *,
        named: bool,
    ) -> web.StreamResponse:
        sent = list(events)
        middle = len(sent) // 2
        out = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await out.prepare(request)
        async for i, event in _paced(sent, self.between_s):
            if i == middle and fault == "reset_midway":
                _abort(request)
            if i == middle and fault == "silent_end":
                return out
            name = f"event: {event['type']}\n" if named else ""
            data = '{"id": "chatcmpl-' if i == middle and fault == "malformed_event" else json.dumps(event)
            await out.write(f"{name}data: {data}\n\n".encode())
            self.sent_tokens[model] += _carries_a_token(event)
        if fault != "malformed_event":
            self._count(model, whole)  # before anybody can know that it is over
        if not named:
            await out.write(b"data: [DONE]\n\n")
        return out

    def _count(self, model: str, whole: Mapping[str, Any]) -> None:
        usage = whole["usage"]
        self.answered[model] += 1
        self.prompt_tokens[model] += usage.get("prompt_tokens", usage.get("input_tokens"))
        self.completion_tokens[model] += usage.get("completion_tokens", usage.get("output_tokens", 0))


@contextmanager
def running(stand_in: StandIn, port: int = 0) -> Iterator[str]:
    """The stand-in in a thread of this process; gives its base URL, with `/v1`."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    found: list[int] = []

    async def start() -> web.AppRunner:
        runner = web.AppRunner(stand_in.application(), handler_cancellation=True, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        found.append(runner.addresses[0][1])
        ready.set()
        return runner

    def run() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, name="stand-in", daemon=True)
    thread.start()
    if not ready.wait(10):
        raise RuntimeError("the stand-in did not start")
    try:
        yield f"http://127.0.0.1:{found[0]}/v1"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


async def _paced(events: Iterable[dict[str, Any]], between_s: float) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    for i, event in enumerate(events):
        if between_s and i:
            await asyncio.sleep(between_s)
        yield i, event


async def _half(request: web.Request, body: bytes, *, abort: bool) -> web.StreamResponse:
    """Half of an answer: as if it were whole, or with the connection closed before the rest."""
    half = body[: len(body) // 2]
    length = len(body) if abort else len(half)
    out = web.StreamResponse(headers={"content-type": "application/json", "content-length": str(length)})
    await out.prepare(request)
    await out.write(half)
    if abort:
        _abort(request)
    return out


def _abort(request: web.Request) -> None:
    """Close the connection at once; ends the handler."""
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


async def _sign(_request: web.Request, out: web.StreamResponse) -> None:
    out.headers["server"] = SERVER


def _carries_a_token(event: Mapping[str, Any]) -> bool:
    if event.get("type", "").endswith(".delta"):
        return True
    deltas = [choice["delta"] for choice in event.get("choices", ())]
    return any(delta.get("content") or delta.get("tool_calls") for delta in deltas)


def _refusal(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return {"text": json.dumps(body), "content_type": "application/json"}


def _error(status: int, message: str, kind: str, code: str | None = None) -> web.Response:
    headers = {"retry-after": str(_RETRY_AFTER_S)} if status == 429 else {}
    return web.Response(status=status, headers=headers, **_refusal(message, kind, code))
