"""A call as it was asked for, and how far it has come."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeGuard
from uuid import uuid4

from pydantic_core import to_json

from serving.attribution import Attribution
from serving.booking import Attempt
from serving.deciding import Asked
from serving.routing.router import Decision
from serving.upstream.flaws import OUTPUT_LIMITS

Path = Literal["/chat/completions", "/responses", "/embeddings"]

_TEXTS: Final = ("messages", "input", "prompt", "tools", "instructions", "response_format")


@dataclass(frozen=True)
class Job:
    """A call as it was asked for.

    payload: what goes to the provider, but for the model. model: by its name; None where it is to be chosen, as `asked`
    says. shows_usage: whether the client wants to see a stream's usage.
    """

    path: Path
    payload: Mapping[str, Any]
    model: str | None
    asked: Asked | None
    who: Attribution
    request_id: str | None
    shows_usage: bool = True
    key: str = field(default_factory=lambda: f"call-{uuid4().hex}")

    def text(self) -> str:
        """What is sent, to count it."""
        return to_json({name: self.payload[name] for name in _TEXTS if self.payload.get(name)}).decode()

    def most_output_tokens(self) -> int | None:
        """What it allows the answer, None when it does not say."""
        given = (self.payload.get(name) for name in OUTPUT_LIMITS)
        return next((limit for limit in given if _is_count(limit)), None)

    def answers(self) -> int:
        """How many answers it asks for."""
        n = self.payload.get("n")
        return n if _is_count(n) else 1


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


@dataclass(frozen=True)
class Call:
    """A job under way. top: the ladder's last model, where a decision chose. held: by which id budgets hold something
    for it, where none did. made: the attempts so far.

    deadline_s: from its begin to the first byte of an answer, however many attempts it takes.
    """

    job: Job
    decision: Decision | None
    top: str | None
    held: str | None
    deadline_s: float
    began_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    made: list[Attempt] = field(default_factory=list)

    @property
    def until_s(self) -> float:
        """When time is up, by the event loop's clock."""
        return self.began_s + self.deadline_s

    def left_s(self) -> float:
        """Seconds until then."""
        return self.until_s - asyncio.get_running_loop().time()
