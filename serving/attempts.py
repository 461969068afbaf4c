"""Who answers first? Models are asked in turn, each attempt written down, until one answers or time is up."""

import asyncio
import math
import random
import time
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple

from pydantic_core import from_json, to_json

from serving.booking import Attempt, Booking
from serving.candidates import Candidate
from serving.errors import UpstreamError
from serving.escalate_entry import Flaw
from serving.job import Call
from serving.upstream.attempt import Answer, Upstreams
from serving.upstream.breaker import Breakers, Trial, is_outage

_BACKOFF_S: Final = 0.25  # before the second attempt, half of it on average; twice as long before each further one
_EARLY_S: Final = 0.01  # by which an event loop may say that time is up
_LONG_WAIT_S: Final = 2.0  # that a provider asks for: another model is asked instead, if there is one


class Found(NamedTuple):
    """An answer, by whom and by which attempt, and when it came by the monotonic clock.

    trial: leave of the model's breaker, to be told how a stream ends. said: the JSON object of one that came whole.
    flaw: what is wrong with it, of what is escalated for.
    """

    candidate: Candidate
    trial: Trial
    attempt: Attempt
    answer: Answer
    said: dict[str, Any] | None
    came_s: float
    flaw: Flaw | None = None

    @property
    def whole(self) -> bool:
        """Whether it is an answer that came whole, and no refusal of the request."""
        return self.answer.status == 200 and self.said is not None


class Attempts:
    """Asks models through their providers."""

    def __init__(self, upstreams: Upstreams, breakers: Breakers, booking: Booking) -> None:
        self._upstreams = upstreams
        self._breakers = breakers
        self._booking = booking

    async def first(self, call: Call, waiting: list[Candidate], stack: AsyncExitStack, *, spare: bool = False) -> Found:
        """The first answer that is one; the provider's call is open, and on the stack.

        spare: there is another answer, which is given where none of these is. Raises LedgerError where an attempt
        cannot be written down, and UpstreamError where nobody answered.
        """
        try:
            async with asyncio.timeout_at(call.until_s):
                return await self._first(call, waiting, stack, spare=spare)
        except TimeoutError:
            raise UpstreamError("timeout", f"no model answered within {call.deadline_s:g} s") from None

    async def _first(self, call: Call, waiting: list[Candidate], stack: AsyncExitStack, *, spare: bool) -> Found:
        models = {one.model for one in waiting}
        if (turn := self._next(waiting, stack)) is None:
            wait_s = max(1, math.ceil(self._breakers.first_back_s(models)))
            raise UpstreamError(
                "unavailable", f"no model that may answer has done so lately; one is tried in {wait_s} s",
                retry_after_s=wait_s,
            )  # fmt: skip
        number = 0
        while True:
            number += 1
            candidate, trial = turn
            await stack.enter_async_context(candidate.upstream.turn)  # nothing has gone out while it waits
            attempt = await self._begun(call, candidate)
            body = to_json({**call.job.payload, "model": candidate.model})
            try:
                answer = await stack.enter_async_context(self._upstreams.call(candidate.upstream, call.job.path, body))
                found = Found(candidate, trial, attempt, answer, _said(answer), time.monotonic())
                if found.whole:
                    trial.end("succeeded")
                return found
            except UpstreamError as error:
                trial.end("failed" if is_outage(error) else "left")
                if error.code == "timeout":
                    waiting = [one for one in waiting if one.model != candidate.model]  # it would take as long again
                wait = _wait(error, number)
                if wait > _LONG_WAIT_S and any(one.model != candidate.model for one in waiting):
                    waiting, wait = [one for one in waiting if one.model != candidate.model], 0.0
                over = stack.pop_all()
                turn = self._next(waiting, stack)
                settled = self._booking.refused(attempt, error, again=turn is not None or spare)
                await over.aclose()
                if turn is None:
                    await settled.on_disk()
                    raise
            except BaseException:  # whatever ends it, the attempt is over
                if number == 1 and not spare and call.left_s() < _EARLY_S:
                    trial.end("failed")  # it had all the time there is
                self._booking.cancelled(attempt, wasted=spare)
                raise
            await asyncio.sleep(wait)

    def _next(self, waiting: list[Candidate], stack: AsyncExitStack) -> tuple[Candidate, Trial] | None:
        """The first that is not left out, taken from those waiting. Its leave ends with the stack, if not before."""
        while waiting:
            candidate = waiting.pop(0)
            if (trial := self._breakers.admit(candidate.model)) is not None:
                stack.callback(trial.end, "left")
                return candidate, trial
        return None

    async def _begun(self, call: Call, candidate: Candidate) -> Attempt:
        job = call.job
        attempt = await self._booking.begin(
            f"{job.key}-{len(call.made) + 1}",
            candidate.model,
            tier=candidate.tier,
            provider=candidate.upstream.entry.provider,
            who=job.who,
            decision_id=None if call.decision is None else call.decision.id,
            request_id=job.request_id,
            sent=job.text,
            embeds=job.path == "/embeddings",
            top=call.top,
            held=call.held,
        )
        call.made.append(attempt)
        return attempt


def _said(answer: Answer) -> dict[str, Any] | None:
    """The JSON object of an answer that came whole. Raises UpstreamError when it is none."""
    if answer.body is None:
        return None
    try:
        said = from_json(answer.body)
    except ValueError:
        raise UpstreamError("malformed", "the answer is no JSON") from None
    if not isinstance(said, dict):
        raise UpstreamError("malformed", "the answer is no JSON object")
    return said


def _wait(error: UpstreamError, number: int) -> float:
    """Seconds before the next attempt: what the provider asks for, or a random part of a time that doubles."""
    return max(error.retry_after_s or 0.0, random.uniform(0, _BACKOFF_S * 2 ** (number - 1)))
