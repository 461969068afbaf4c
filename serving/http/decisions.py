"""The routing endpoint: a request in, a decision out, one at a time or many."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.attribution import Attribution, read_attribution, read_name
from serving.chat import Conversation, read_conversation
from serving.errors import BudgetError, InputError
from serving.http.body import as_object, read_json
from serving.http.errors import budget_error_object, error_object
from serving.http.metrics import Metrics
from serving.request_log import RequestLog
from serving.routing.policy import Policy
from serving.routing.promoted import PromotedRouter
from serving.routing.router import Decision, Router
from serving.routing.rules import Rules
from serving.settings import Settings
from serving.spending import Spending, refuse

_JSON: Final = "application/json"
_HOLDING: Final = "`messages` or `prompt`"
_QUICK_CHARS: Final = 512
"""A text up to this long, some 100 tokens, is embedded on the event loop: 8 ms at most, where handing it to a thread
costs 0.35 ms of every request. Measured with `python -m tests.benchmarks service`."""


class _Asked(NamedTuple):
    """A request that was read: what is to be decided, for whom, and whether with reasons."""

    conversation: Conversation
    policy: Policy
    who: Attribution
    explain: bool
    request_id: str | None
    payload: dict[str, object]


class Decisions:
    """Handlers of `/route` and `/route/batch`."""

    def __init__(
        self,
        promoted: PromotedRouter,
        settings: Settings,
        default_policy: Policy,
        metrics: Metrics,
        rules: Rules,
        log: RequestLog | None,
        spending: Spending,
    ) -> None:
        """log: where decisions are kept; None keeps none."""
        self._promoted = promoted
        self._settings = settings
        self._default_policy = default_policy
        self._metrics = metrics
        self._rules = rules
        self._log = log
        self._spending = spending
        # For longer texts and batches. The encoder computes outside the interpreter's lock, so health checks and
        # other prompts are answered meanwhile; a second thread would only make both slower on the worker's core.
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="encoder")

    def routes(self) -> list[Route]:
        """The routes of this resource."""
        return [
            Route("/route", self.route, methods=["POST"]),
            Route("/route/batch", self.route_batch, methods=["POST"]),
        ]

    async def route(self, request: Request) -> Response:
        """One decision."""
        payload = as_object(await read_json(request, self._settings.max_request_bytes), where="body", holding=_HOLDING)
        decision = await self._decide(payload, self._promoted.router)
        return Response(decision.model_dump_json(), media_type=_JSON)

    async def route_batch(self, request: Request) -> Response:
        """A decision for each request, by the same router; one that is wrong gets an `error` in its place."""
        payload = as_object(await read_json(request, self._settings.max_batch_bytes), where="body", holding=_HOLDING)
        requests = payload.get("requests")
        limit = self._settings.max_batch_requests
        if not isinstance(requests, list) or not 1 <= len(requests) <= limit:
            raise InputError(f"must be a list of 1 to {limit} requests", where="requests")
        router = self._promoted.router
        loop = asyncio.get_running_loop()
        data = [
            await loop.run_in_executor(self._encoding, self._decide_or_error, item, i, router)
            for i, item in enumerate(requests)  # one by one, so that single requests come in between
        ]
        return Response(json.dumps({"object": "list", "data": data}, allow_nan=False), media_type=_JSON)

    def _decide_or_error(self, item: object, index: int, router: Router) -> dict[str, object]:
        try:
            asked = self._read(as_object(item, where=None, holding=_HOLDING))
            if asked.explain:  # some milliseconds each, and batches wait in one line
                raise InputError("is for single requests: ask /route", where="explain")
            decision = self._decided(asked, router)
            if (held := self._spending.reserve(decision, asked.who)) is not None:
                refuse(held.result())
            return decision.model_dump()
        except InputError as error:
            where = f"requests[{index}]" + (f".{error.where}" if error.where else "")
            return {"error": error_object(str(error), "invalid_request_error", where)}
        except BudgetError as error:
            return {"error": budget_error_object(error)}

    async def _decide(self, payload: dict[str, object], router: Router) -> Decision:
        asked = self._read(payload)
        short = len(asked.conversation.last_user_text) <= _QUICK_CHARS
        if not asked.explain and (short or router.classifier.remembers(asked.conversation)):
            decision = self._decided(asked, router)
        else:
            decision = await asyncio.get_running_loop().run_in_executor(self._encoding, self._decided, asked, router)
        if (held := self._spending.reserve(decision, asked.who)) is not None:
            refuse(await asyncio.wrap_future(held))
        return decision

    def _decided(self, asked: _Asked, router: Router) -> Decision:
        considered = router.consider(asked.conversation, asked.policy, asked.who, self._rules, explain=asked.explain)
        decision = considered.decision
        if self._log is not None:
            self._log.keep(
                considered, router, asked.policy, asked.conversation, asked.who, asked.payload, asked.request_id
            )
        self._metrics.decisions.labels(tier=decision.tier, reason=decision.reason).inc()
        if asked.policy == self._default_policy:
            self._metrics.serve(decision)
        return decision

    def _read(self, payload: dict[str, object]) -> _Asked:
        conversation = read_conversation(
            messages=payload.get("messages"),
            prompt=payload.get("prompt"),
            tools=payload.get("tools"),
            response_format=payload.get("response_format"),
            max_tokens=payload.get("max_tokens"),
            max_completion_tokens=payload.get("max_completion_tokens"),
        )
        policy = Policy.parse(payload.get("policy"), default=self._default_policy)
        who = read_attribution(payload.get("metadata"), payload.get("user"))
        request_id = read_name(payload.get("request_id"), "request_id")
        return _Asked(conversation, policy, who, self._explain(payload.get("explain")), request_id, payload)

    def _explain(self, asked: object) -> bool:
        if not isinstance(asked, bool | None):
            raise InputError(f"must be true or false, not {type(asked).__name__}", where="explain")
        if asked and not self._settings.explains:
            raise InputError("is switched off in the settings of this service", where="explain")
        return bool(asked)
