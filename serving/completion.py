"""One call through the service, from what a client asked to what it gets: decide, call, look at the answer, write down.

An answer with a flaw that the settings escalate for is thrown away for that of the next tier, once.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from serving.answer_stream import AnswerStream
from serving.attempts import Attempts, Found
from serving.booking import Booking, Settled
from serving.candidates import Candidate, Candidates
from serving.deciding import Decider
from serving.errors import LedgerError, UpstreamError
from serving.escalate_entry import FLAW_CODES
from serving.escalation import Escalation
from serving.job import Call, Job
from serving.ledger.events import Cost
from serving.ledger.report import usd
from serving.spending import Spending, refuse
from serving.upstream.breaker import Breakers
from serving.upstream.events import seen_in

_OTHER: Final = "other"
_USUAL_ANSWER_TOKENS: Final = 1_000  # held for the answer of a model asked by its name, where the request has no limit


@dataclass(frozen=True)
class Reply:
    """What a client gets. body: the whole of it; None of a stream."""

    status: int
    content_type: str
    headers: Mapping[str, str]
    body: bytes | None
    stream: AnswerStream | None


class Completions:
    """Calls models through their providers.

    deadline_s: from the first attempt to the first byte of an answer, however many attempts it takes.
    """

    def __init__(
        self,
        decider: Decider,
        candidates: Candidates,
        attempts: Attempts,
        breakers: Breakers,
        booking: Booking,
        escalation: Escalation,
        spending: Spending,
        deadline_s: float,
    ) -> None:
        self._decider = decider
        self._candidates = candidates
        self._attempts = attempts
        self._breakers = breakers
        self._booking = booking
        self._escalation = escalation
        self._spending = spending
        self._deadline_s = deadline_s

    async def reply(self, job: Job) -> Reply:
        """The answer, or the beginning of its stream. To cancel this, or the stream, ends the provider's call as well.

        Raises InputError, BudgetError, LedgerError where nothing can be written down, and UpstreamError where no
        provider gave an answer.
        """
        decision = None if job.asked is None else await self._decider.decide(job.asked)
        top = None if decision is None else self._decider.router.tiers[-1].models[0]
        held = None if job.model is None else await self._held(job, job.model)
        call, found = Call(job, decision, top, held, self._deadline_s), None
        try:
            async with AsyncExitStack() as stack:
                found = await self._attempts.first(call, self._who_may(call), stack)
                return self._streamed(call, found, stack) or await self._whole(call, found, stack)
        finally:
            if found is None and not call.made:  # otherwise it is settled with the last attempt
                if decision is not None:
                    self._decider.withdraw(decision, job.who)
                if held is not None:
                    self._spending.release(held, job.who)

    def left_out(self) -> dict[str, float]:
        """The models left out since calls to them fail, and seconds until one may try each.

        Those that are neither on the ladder nor listed by an upstream are `other`: their names are clients' own.
        """
        known = self._candidates.known()
        found: dict[str, float] = {}
        for model, wait_s in self._breakers.out().items():
            name = model if model in known else _OTHER
            found[name] = min(wait_s, found.get(name, wait_s))
        return found

    async def _held(self, job: Job, model: str) -> str | None:
        """The id by which budgets hold what a call of that model may cost; None without a hard one.

        Raises BudgetError when one cannot bear it, UnknownModelError when nobody serves the model.
        """
        if not self._spending.limits(job.who):
            return None
        provider = self._candidates.named(model)[0].upstream.entry.provider
        answer = 0 if job.path == "/embeddings" else job.most_output_tokens() or _USUAL_ANSWER_TOKENS
        expected = self._booking.expected_usd(model, provider, job.text(), answer * job.answers())
        if (holding := self._spending.reserve(job.key, expected, job.who)) is not None:
            try:
                refuse(await asyncio.wrap_future(holding), expected)
            except BaseException:  # a client that leaves meanwhile
                self._spending.release(job.key, job.who)
                raise
        return job.key

    def _who_may(self, call: Call) -> list[Candidate]:
        if call.decision is None or call.job.asked is None:
            return self._candidates.named(str(call.job.model))
        return self._candidates.decided(call.decision, call.job.asked)

    def _streamed(self, call: Call, found: Found, stack: AsyncExitStack) -> Reply | None:
        """A stream as the client gets it, which takes over what is on the stack; None of a whole answer."""
        answer = found.answer
        if answer.chunks is None:
            return None
        stream = AnswerStream(
            self._booking, found.attempt, found.trial, answer.chunks, stack.pop_all(),
            mask=found.candidate.upstream.without_key, shows_usage=call.job.shows_usage,
            named_events=call.job.path == "/responses",
        )  # fmt: skip
        return Reply(answer.status, answer.content_type, _headers(call, found), None, stream)

    async def _whole(self, call: Call, found: Found, stack: AsyncExitStack) -> Reply:
        """The answer, or a stronger tier's where it is flawed and that one is not; both are written down."""
        first, instead = found, None
        asked = len(call.made)
        try:
            await stack.aclose()
            first = await self._judged(call, found)
            if first.flaw is not None:
                instead = await self._stronger(call, first)
        except BaseException:  # whatever ends it, there was an answer
            self._book(first)
            raise
        given, other = first, instead
        if instead is not None and instead.whole and instead.flaw not in ("empty", "refused"):
            given, other = instead, first
        settled = [] if other is None else [self._book(other, wasted=True)]
        settled.append(self._book(given))
        headers = _headers(call, given)
        if given.whole:
            headers |= _cost([one.cost for one in settled])
        if first.flaw is not None and len(call.made) > asked:
            headers["x-tierwise-escalated"] = first.flaw
        for one in settled:
            await one.on_disk()
        return Reply(given.answer.status, given.answer.content_type, headers, given.answer.body, None)

    def _book(self, found: Found, *, wasted: bool = False) -> Settled:
        """Settle the attempt. wasted: another answer is given."""
        if found.said is None or not found.whole:
            return self._booking.failed(found.attempt, found.answer.status, wasted=wasted)
        code = None if found.flaw is None else FLAW_CODES[found.flaw]
        return self._booking.answered(
            found.attempt, seen_in(found.said), error=code, wasted=wasted, came_s=found.came_s
        )

    async def _judged(self, call: Call, found: Found) -> Found:
        """The answer with its flaw, if it is looked for."""
        asked, said = call.job.asked, found.said
        if call.decision is None or asked is None or said is None or not found.whole:
            return found
        return found._replace(flaw=await self._escalation.flaw(asked, call.decision, call.job.payload, said))

    async def _stronger(self, call: Call, found: Found) -> Found | None:
        """What the next tier that can take the request answers, whole; None where it is not asked, or does not.

        It is asked when as much time is left as the answer at hand took, and the budgets bear it.
        """
        decision, asked = call.decision, call.job.asked
        if decision is None or asked is None or call.left_s() < found.came_s - found.attempt.began_s:
            return None
        if not (rest := self._candidates.above(decision, asked, str(found.candidate.tier))):
            return None
        try:
            if not await self._decider.can_pay_for(str(rest[0].tier), decision, asked):
                return None
            async with AsyncExitStack() as stack:
                instead = await self._attempts.first(call, rest, stack, spare=True)
        except (UpstreamError, LedgerError):
            return None
        if instead.answer.body is None:  # a stream that nobody asked for
            self._booking.cancelled(instead.attempt, wasted=True)
            return None
        try:
            return await self._judged(call, instead)
        except BaseException:
            self._book(instead, wasted=True)
            raise


def _headers(call: Call, given: Found) -> dict[str, str]:
    told = {"x-tierwise-attempts": str(len(call.made)), "x-should-retry": "false"}  # it was tried again here
    if (tier := given.candidate.tier) is not None:
        told["x-tierwise-tier"] = tier
    if (decision := call.decision) is not None:
        told |= {
            "x-tierwise-decision": decision.id,
            "x-tierwise-reason": decision.reason,
            "x-tierwise-router": decision.router,
        }
    return told


def _cost(costs: Sequence[Cost | None]) -> dict[str, str]:
    """What all of it cost, where that is known."""
    known = [cost.pico_usd for cost in costs if cost is not None]
    return {"x-tierwise-cost-usd": f"{usd(sum(known)):f}"} if len(known) == len(costs) else {}
