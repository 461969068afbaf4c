"""What became of a request: noted while it is answered, told when the answer is at its end."""

import time
from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api_key import ApiKey
from serving.http.auth import KEY_IN_SCOPE
from serving.ledger.events import Event
from serving.routing.router import Decision

_CLOSED: Final = 499
"""As nginx counts a client that left before an answer began."""


@dataclass(slots=True)
class Followed:
    """A request. events: its attempts that are settled, in their order. began_ns: since 1970. status: as long as
    nothing was answered, that of a client that left. trace: the caller's `traceparent`."""

    endpoint: str
    trace: str | None
    began_ns: int = field(default_factory=time.time_ns)
    began_s: float = field(default_factory=time.perf_counter)
    status: int = _CLOSED
    first_byte_s: float | None = None
    seconds: float = 0.0
    key: ApiKey | None = None
    decision: Decision | None = None
    events: list[Event] = field(default_factory=list)


_now: ContextVar[Followed | None] = ContextVar("followed", default=None)


def note_decision(decision: Decision) -> None:
    """The decision on the request that is being answered."""
    if (followed := _now.get()) is not None:
        followed.decision = decision


def note_event(event: Event) -> None:
    """An attempt of it that is over."""
    if (followed := _now.get()) is not None:
        followed.events.append(event)


class Follow:
    """ASGI middleware that follows requests to the paths given. tell: what each is told to, when it is over."""

    def __init__(self, app: ASGIApp, paths: Collection[str], tell: Collection[Callable[[Followed], None]]) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._tell = tuple(tell)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in self._paths or not self._tell:
            await self._app(scope, receive, send)
            return
        trace = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), None)
        followed = Followed(scope["path"], trace)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                followed.status = message["status"]
            elif followed.first_byte_s is None:
                followed.first_byte_s = time.perf_counter() - followed.began_s
            await send(message)

        before = _now.set(followed)
        try:
            await self._app(scope, receive, sending)
        except Exception:
            if followed.first_byte_s is None:
                followed.status = 500  # as it is answered outside of here
            raise
        finally:
            _now.reset(before)
            followed.seconds = time.perf_counter() - followed.began_s
            followed.key = scope.get(KEY_IN_SCOPE)
            for tell in self._tell:
                tell(followed)
