"""From a request to a decision that may be spent on and is kept: for `/route`, and for calls that go through here."""

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from serving.attribution import Attribution, read_attribution, read_name
from serving.chat import Conversation, read_conversation
from serving.errors import InputError
from serving.request_log import RequestLog
from serving.routing.policy import Policy
from serving.routing.promoted import PromotedRouter
from serving.routing.router import Considered, Decision, Router
from serving.routing.rules import Rules
from serving.spending import Spending, refuse

AUTO: Final = "auto"
"""The name of a model that is to be chosen, alone or with a policy behind a colon."""
_QUICK_CHARS: Final = 512
"""A text up to this long, some 100 tokens, is embedded on the event loop: 8 ms at most, where handing it to a thread
costs 0.35 ms of every request. Measured with `python -m tests.benchmarks service`."""


class Asked(NamedTuple):
    """A request that was read: what is to be decided, for whom, and whether with reasons."""

    conversation: Conversation
    policy: Policy
    who: Attribution
    explain: bool
    request_id: str | None
    payload: Mapping[str, object]


class Decider:
    """Decides with the router in service.

    default: the policy of a request that names none. log: where decisions are kept; None keeps none. on_decision: is
    told of each that was not refused, and whether the default policy made it. explains: whether a client may ask why.
    """

    def __init__(
        self,
        promoted: PromotedRouter,
        default: Policy,
        rules: Rules,
        log: RequestLog | None,
        spending: Spending,
        on_decision: Callable[[Decision, bool], None],
        *,
        explains: bool,
    ) -> None:
        self._promoted = promoted
        self._default = default
        self._rules = rules
        self._log = log
        self._spending = spending
        self._on_decision = on_decision
        self._explains = explains
        # For longer texts and batches. The encoder computes outside the interpreter's lock, so health checks and
        # other prompts are answered meanwhile; a second thread would only make both slower on the worker's core.
        self.encoding = ThreadPoolExecutor(1, thread_name_prefix="encoder")

    @property
    def router(self) -> Router:
        """The router in service, until another is promoted."""
        return self._promoted.router

    def read(self, payload: Mapping[str, object], by: Attribution) -> Asked:
        """The request in a payload of `/route` or of a chat completion; by: whose it is, as far as its key says.

        Raises InputError naming the field.
        """
        conversation = read_conversation(
            messages=payload.get("messages"),
            prompt=payload.get("prompt"),
            tools=payload.get("tools"),
            response_format=payload.get("response_format"),
            max_tokens=payload.get("max_tokens"),
            max_completion_tokens=payload.get("max_completion_tokens"),
        )
        policy = Policy.parse(payload.get("policy"), default=self._default)
        who = read_attribution(payload.get("metadata"), payload.get("user"), by)
        request_id = read_name(payload.get("request_id"), "request_id")
        return Asked(conversation, policy, who, self._wants_reasons(payload.get("explain")), request_id, payload)

    async def decide(self, asked: Asked) -> Decision:
        """The decision. Raises InputError when no tier can take the request, BudgetError when none can be paid."""
        router, loop = self.router, asyncio.get_running_loop()
        short = len(asked.conversation.last_user_text) <= _QUICK_CHARS
        if not asked.explain and (short or router.classifier.remembers(asked.conversation)):
            considered = self._consider(asked, router)
        else:
            considered = await loop.run_in_executor(self.encoding, self._consider, asked, router)
        decision = considered.decision
        held = self._spending.reserve(decision.id, decision.expected_cost_usd, asked.who)
        try:
            if held is not None:
                refuse(await asyncio.wrap_future(held), decision.expected_cost_usd)
            if self._log is not None and self._log.stores_text:  # as slow as the text is long, and the redaction
                within = contextvars.copy_context().run  # the request that is followed
                await loop.run_in_executor(self.encoding, within, self._keep, asked, considered, router)
            else:
                self._keep(asked, considered, router)
        except BaseException:  # a client that leaves meanwhile
            if held is not None:
                self.withdraw(decision, asked.who)
            raise
        return decision

    def withdraw(self, decision: Decision, who: Attribution) -> None:
        """No answer came of it: what is held for it in a budget goes."""
        self._spending.release(decision.id, who)

    async def can_pay_for(self, tier: str, decision: Decision, asked: Asked) -> bool:
        """Whether the budgets bear a second call for a decision, to that tier; it is then held beside the first."""
        loop = asyncio.get_running_loop()
        more = await loop.run_in_executor(self.encoding, self.router.expected_cost_usd, asked.conversation, tier)
        held = self._spending.reserve(decision.id, (decision.expected_cost_usd or 0.0) + (more or 0.0), asked.who)
        return held is None or await asyncio.wrap_future(held) is None

    def decide_here(self, asked: Asked, router: Router) -> Decision:
        """The same by a given router, in the thread of the caller, which is not the event loop's."""
        considered = self._consider(asked, router)
        if (
            held := self._spending.reserve(considered.decision.id, considered.decision.expected_cost_usd, asked.who)
        ) is not None:
            refuse(held.result(), considered.decision.expected_cost_usd)
        self._keep(asked, considered, router)
        return considered.decision

    def _consider(self, asked: Asked, router: Router) -> Considered:
        return router.consider(asked.conversation, asked.policy, asked.who, self._rules, explain=asked.explain)

    def _keep(self, asked: Asked, considered: Considered, router: Router) -> None:
        """What was not refused is counted and logged."""
        if self._log is not None:
            self._log.keep(
                considered, router, asked.policy, asked.conversation, asked.who, asked.payload, asked.request_id
            )
        self._on_decision(considered.decision, asked.policy == self._default)

    def _wants_reasons(self, asked: object) -> bool:
        if not isinstance(asked, bool | None):
            raise InputError(f"must be true or false, not {type(asked).__name__}", where="explain")
        if asked and not self._explains:
            raise InputError("is switched off in the settings of this service", where="explain")
        return bool(asked)
