"""The routing endpoint: a request in, a decision out, one at a time or many."""

import asyncio
import json
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.api_key import who_calls
from serving.attribution import Attribution
from serving.deciding import AUTO, Decider
from serving.errors import BudgetError, InputError
from serving.http.auth import key_of
from serving.http.body import as_object, read_json
from serving.http.errors import budget_error_object, error_object
from serving.routing.router import Router
from serving.settings import Settings

_JSON: Final = "application/json"
_HOLDING: Final = "`messages` or `prompt`"


class Decisions:
    """Handlers of `/route` and `/route/batch`."""

    def __init__(self, decider: Decider, settings: Settings) -> None:
        self._decider = decider
        self._settings = settings

    def routes(self) -> list[Route]:
        """The routes of this resource."""
        return [
            Route("/route", self.route, methods=["POST"]),
            Route("/route/batch", self.route_batch, methods=["POST"]),
        ]

    async def route(self, request: Request) -> Response:
        """One decision."""
        payload = as_object(await read_json(request, self._settings.max_request_bytes), where="body", holding=_HOLDING)
        decision = await self._decider.decide(self._decider.read(payload, decides_for(request)))
        return Response(decision.model_dump_json(), media_type=_JSON)

    async def route_batch(self, request: Request) -> Response:
        """A decision for each request, by the same router; one that is wrong gets an `error` in its place."""
        payload = as_object(await read_json(request, self._settings.max_batch_bytes), where="body", holding=_HOLDING)
        requests = payload.get("requests")
        limit = self._settings.max_batch_requests
        if not isinstance(requests, list) or not 1 <= len(requests) <= limit:
            raise InputError(f"must be a list of 1 to {limit} requests", where="requests")
        router, by = self._decider.router, decides_for(request)
        loop = asyncio.get_running_loop()
        data = [
            await loop.run_in_executor(self._decider.encoding, self._decide_or_error, item, i, router, by)
            for i, item in enumerate(requests)  # one by one, so that single requests come in between
        ]
        return Response(json.dumps({"object": "list", "data": data}, allow_nan=False), media_type=_JSON)

    def _decide_or_error(self, item: object, index: int, router: Router, by: Attribution) -> dict[str, object]:
        try:
            asked = self._decider.read(as_object(item, where=None, holding=_HOLDING), by)
            if asked.explain:  # some milliseconds each, and batches wait in one line
                raise InputError("is for single requests: ask /route", where="explain")
            return self._decider.decide_here(asked, router).model_dump()
        except InputError as error:
            where = f"requests[{index}]" + (f".{error.where}" if error.where else "")
            return {"error": error_object(str(error), "invalid_request_error", where)}
        except BudgetError as error:
            return {"error": budget_error_object(error)}


def decides_for(request: Request) -> Attribution:
    """Whose a decision is, by the caller's key. Raises AccessError where that does not allow `auto`."""
    key = key_of(request)
    if key is not None:
        key.check_model(AUTO)
    return who_calls(key)
