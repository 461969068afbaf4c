"""What a provider's stream says while it passes: its usage, its ids, how far it got. Text is passed on as it came."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import from_json

from serving.errors import UpstreamError

_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_MOST_PENDING: Final = 16 * 1024 * 1024  # bytes of one event; images in answers are large
_DONE: Final = b"[DONE]"
_DELTAS: Final = frozenset({
    "response.output_text.delta", "response.function_call_arguments.delta", "response.refusal.delta",
    "response.reasoning_summary_text.delta", "response.reasoning_text.delta",
})  # fmt: skip
_LAST: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


@dataclass(slots=True)
class Events:
    """Cuts the bytes of a stream into its events."""

    _pending: bytes = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The events that are whole now, each with the blank line it ends in. UpstreamError when one is endless."""
        pending = self._pending + chunk
        start = 0
        for end in _END.finditer(pending, max(0, len(self._pending) - 3)):
            yield pending[start : end.end()]
            start = end.end()
        self._pending = pending[start:]
        if len(self._pending) > _MOST_PENDING:
            raise UpstreamError("malformed", f"an event of its stream is larger than {_MOST_PENDING:,} bytes")


@dataclass(slots=True)
class Seen:
    """What is known of an answer so far. usage: as the provider told it. text: what came, to count where none is told.

    finished: whether an answer in it came to its end; ended: whether the stream did, and said so. failed: whether the
    provider said in mid-stream that it failed.
    """

    id: str | None = None
    model: str | None = None
    usage: Mapping[str, Any] | None = None
    text: list[str] = field(default_factory=list)
    service_tier: str | None = None
    finished: bool = False
    ended: bool = False
    failed: bool = False

    def take(self, event: bytes) -> bool:
        """Read an event; gives whether it tells usage and nothing else. Raises UpstreamError when it is no event."""
        data = _data(event)
        if not data:
            return False  # a comment that keeps the connection, or the name of an event alone
        if data == _DONE:
            self.ended = True
            return False
        try:
            said = from_json(data)
        except ValueError:
            raise UpstreamError("malformed", "an event of its stream is no JSON") from None
        if not isinstance(said, dict):
            raise UpstreamError("malformed", "an event of its stream is no object")
        if isinstance(kind := said.get("type"), str) and "choices" not in said:
            self._take_response(kind, said)
            return False
        return self._take_chunk(said)

    def _take_chunk(self, said: dict[str, Any]) -> bool:
        """One of chat completions."""
        self.take_head(said)
        self.failed = self.failed or bool(said.get("error"))
        choices = said.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            if isinstance(delta := choice.get("delta"), dict):
                self.text += _said(delta)
            self.finished = self.finished or choice.get("finish_reason") is not None
        return choices == [] and isinstance(said.get("usage"), dict)

    def _take_response(self, kind: str, said: dict[str, Any]) -> None:
        """One of the Responses API."""
        if kind in _DELTAS and isinstance(delta := said.get("delta"), str):
            self.text.append(delta)
        if isinstance(response := said.get("response"), dict):
            self.take_head(response)
        self.ended = self.ended or kind in _LAST
        self.failed = self.failed or kind in ("error", "response.failed")

    def take_head(self, said: Mapping[str, Any]) -> None:
        """Read what an answer says beside its text."""
        self.id = _text(said.get("id")) or self.id
        self.model = _text(said.get("model")) or self.model
        self.service_tier = _text(said.get("service_tier")) or self.service_tier
        if isinstance(usage := said.get("usage"), dict):
            self.usage = usage


def seen_in(answer: Mapping[str, Any]) -> Seen:
    """The same of an answer that came whole, of either API or of embeddings."""
    seen = Seen(ended=True)
    seen.take_head(answer)
    for parts in (answer.get("choices"), answer.get("output")):
        for one in parts if isinstance(parts, list) else ():
            if isinstance(one, dict):
                seen.text += _said_whole(one)
    return seen


def _data(event: bytes) -> bytes:
    if event.startswith(b"data:") and event.count(b"\n") <= 2 and b"\r" not in event:
        return event[5:].strip()  # as nearly all are
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines).strip()


def _said_whole(one: Mapping[str, Any]) -> Iterator[str]:
    """The text of a choice of a chat completion, or of an item of a response."""
    if isinstance(message := one.get("message"), dict):
        yield from _said(message)
    yield from (one[name] for name in ("name", "arguments") if isinstance(one.get(name), str))
    parts = one.get("content")
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and isinstance(text := part.get("text"), str):
            yield text


def _said(delta: Mapping[str, Any]) -> Iterator[str]:
    for name in ("content", "refusal", "reasoning_content", "reasoning"):
        if isinstance(text := delta.get(name), str) and text:
            yield text
    calls = delta.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield from (function[name] for name in ("name", "arguments") if isinstance(function.get(name), str))


def _text(value: object) -> str | None:
    """A name that the ledger can keep."""
    return value[:256] if isinstance(value, str) and value and "\x00" not in value else None
