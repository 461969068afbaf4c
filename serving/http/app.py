"""The web application that BentoML mounts: what it is made of, its routes, and the shape of its errors."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from serving.attempts import Attempts
from serving.booking import Booking
from serving.candidates import Candidates
from serving.completion import Completions
from serving.deciding import Decider
from serving.errors import AccessError, BudgetError, InputError, LedgerError, UpstreamError
from serving.escalation import Escalation
from serving.http.auth import PROBES, Guard, KeyRing
from serving.http.decisions import Decisions
from serving.http.docs import docs_routes
from serving.http.errors import (
    on_access_error,
    on_budget_error,
    on_client_gone,
    on_http_error,
    on_input_error,
    on_ledger_error,
    on_unexpected_error,
    on_upstream_error,
)
from serving.http.feedback import FeedbackResource
from serving.http.followed import Follow, note_decision, note_event
from serving.http.ledger import LedgerResource
from serving.http.metrics import CountRequests, Metrics, metrics_route
from serving.http.openai import OpenAIResource
from serving.http.rates import Rates
from serving.http.request_lines import tell_line
from serving.http.status import status_route
from serving.http.systemone import SystemOneResource
from serving.http.tracing import Tracing
from serving.http.upkeep import Upkeep
from serving.ledger.access import LedgerAccess
from serving.ledger.events import Event
from serving.ledger.prices import PriceBook
from serving.redaction import load_redaction
from serving.request_log import RequestLog
from serving.routing.policy import Policy
from serving.routing.promoted import PromotedRouter
from serving.routing.router import Decision
from serving.routing.rules import NO_RULES, Rules
from serving.settings import Settings
from serving.spending import Spending
from serving.upstream.attempt import Upstreams
from serving.upstream.breaker import Breakers

_FOLLOWED: Final = (
    "/route", "/route/batch", "/ledger/events", "/v1/feedback", "/v1/chat/completions", "/v1/responses",
    "/v1/embeddings", "/v1/systemone",
)  # fmt: skip
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_ON_ERROR: Final = {
    InputError: on_input_error,
    LedgerError: on_ledger_error,
    AccessError: on_access_error,
    BudgetError: on_budget_error,
    UpstreamError: on_upstream_error,
    HTTPException: on_http_error,
    ClientDisconnect: on_client_gone,
    Exception: on_unexpected_error,
}


def build_app(
    settings: Settings,
    promoted: PromotedRouter,
    policy: Policy,
    metrics: Metrics,
    rules: Rules = NO_RULES,
    traces: Tracing | None = None,
) -> Starlette:
    """The application over `promoted`; `policy` is that of requests that name none."""
    access = LedgerAccess(settings.home / "ledger.db")
    log = RequestLog(
        access,
        store_text=settings.store_text,
        redact=None if settings.redact is None else load_redaction(settings.redact),
        on_failure=lambda cause: metrics.log_failures.labels(cause).inc(),
    )
    spending = Spending(
        access, settings.budget_webhook, lambda scope, level: metrics.budget_alerts.labels(scope, level).inc()
    )
    kept_in = log if settings.log_decisions else None

    def on_decision(decision: Decision, by_default: bool) -> None:
        metrics.count_decision(decision, by_default)
        note_decision(decision)

    decider = Decider(promoted, policy, rules, kept_in, spending, on_decision, explains=settings.explains)
    upstreams = Upstreams(settings.upstreams)
    prices = PriceBook(settings.prices, lambda: promoted.router.tiers)
    keys, rates = KeyRing(access), Rates()

    def on_event(event: Event) -> None:
        metrics.count_event(event)
        rates.spend(event)

    def on_attempt(event: Event) -> None:
        on_event(event)
        metrics.count_attempt(event)
        note_event(event)

    booking = Booking(access, prices, on_attempt)
    breakers = Breakers(settings.breaker_failures, settings.breaker_first_s, settings.breaker_longest_s)
    candidates = Candidates(decider, upstreams, settings.weights)
    attempts = Attempts(upstreams, breakers, booking)
    escalation = Escalation(settings.escalate)
    completions = Completions(
        decider, candidates, attempts, breakers, booking, escalation, spending, settings.deadline_s
    )

    beside = Upkeep(
        promoted, policy, metrics, access, keys, spending, completions.left_out, timedelta(days=settings.log_days)
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with beside.running():
            yield
        await upstreams.close()
        await asyncio.to_thread(access.close)
        if traces is not None:
            await asyncio.to_thread(traces.close)

    routes = [
        *OpenAIResource(completions, decider, upstreams, settings).routes(),
        *Decisions(decider, settings).routes(),
        *SystemOneResource(decider, settings).routes(),
        *LedgerResource(access, settings, prices, on_event, lambda: promoted.router.tiers).routes(),
        *FeedbackResource(access, log, metrics).routes(),
        status_route(promoted, access, completions.left_out),
        metrics_route(),
        *docs_routes(settings),
    ]
    told = [tell_line] if settings.log_requests else []
    if traces is not None:
        told.append(traces.tell)
    inside = [
        Middleware(Follow, paths=_FOLLOWED, tell=told),
        Middleware(Guard, keys=keys, rates=rates, required=settings.require_keys),
    ]
    return _answering(routes, metrics, inside, lifespan)


def _answering(
    routes: Sequence[Route],
    metrics: Metrics,
    inside: Sequence[Middleware],
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]],
) -> Starlette:
    """The application that answers on these paths, and on any other with an error in the shape of every error."""
    allowed = {route.path: sorted(route.methods or ()) for route in routes}
    allowed |= {path: ["GET", "HEAD"] for path in PROBES}
    count = Middleware(CountRequests, metrics=metrics, paths=frozenset(allowed))

    async def anything_else(request: Request) -> Response:
        """Every path, so that BentoML's index page, which loads a tag manager, is not one of ours."""
        path = request.url.path
        if path in allowed:
            raise HTTPException(405, f"{path} takes {', '.join(allowed[path])}", {"Allow": ", ".join(allowed[path])})
        raise HTTPException(404, f"there is no {path}")

    return Starlette(
        routes=[*routes, Route("/{path:path}", anything_else, methods=_METHODS)],
        middleware=[count, *inside],
        exception_handlers=_ON_ERROR,
        lifespan=lifespan,
    )
