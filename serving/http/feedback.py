"""Feedback over HTTP: what somebody thought of an answer, or did about it."""

import asyncio
import json
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.api_key import who_calls
from serving.http.auth import key_of
from serving.http.body import as_object, read_json
from serving.http.metrics import Metrics
from serving.ledger.access import LedgerAccess
from serving.ledger.feedback import Feedback, read_feedback
from serving.request_log import RequestLog

_MOST_BYTES: Final = 100_000


class FeedbackResource:
    """The handler of `/v1/feedback`."""

    def __init__(self, access: LedgerAccess, log: RequestLog, metrics: Metrics) -> None:
        self._access = access
        self._log = log
        self._metrics = metrics

    def routes(self) -> list[Route]:
        """The routes of this resource."""
        return [Route("/v1/feedback", self.give, methods=["POST"])]

    async def give(self, request: Request) -> Response:
        """Answered once it would survive a crash. An id that is not known yet may become so: a call told late."""
        payload = as_object(await read_json(request, _MOST_BYTES), where="body", holding="an `id` and a judgement")
        feedback = read_feedback(payload, who_calls(key_of(request)).tenant)
        if feedback.comment is not None:  # the redaction takes the time it takes
            feedback = await asyncio.to_thread(self._log.feedback, feedback)
        store = await self._access.ready()
        matched = await asyncio.wrap_future(store.give(feedback))
        self._metrics.feedback.labels(said=_said(feedback), matched=matched or "nothing").inc()
        body = {"object": "feedback", "id": feedback.id, "matched": matched}
        return Response(json.dumps(body), media_type="application/json")


def _said(feedback: Feedback) -> str:
    if feedback.acceptable is not None:
        return "acceptable" if feedback.acceptable else "unacceptable"
    return feedback.kind or "score"
