"""The web application that BentoML mounts: routes, error shapes, and the watch on promotions."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
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

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0
_EXPIRE_EVERY_S: Final = 3600.0
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

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        promoted.refresh()
        _expect(promoted, policy, metrics)
        await _open(access)
        with contextlib.suppress(LedgerError):  # it is tried again
            await asyncio.to_thread(keys.refresh)
            await asyncio.to_thread(spending.refresh)  # hard budgets hold from the first call on
        _settle_garbage_collection()
        watch = asyncio.create_task(_watch(promoted, policy, metrics, access, completions))
        following = asyncio.create_task(_follow(spending, keys))
        telling = asyncio.create_task(_tell(spending))
        expiry = asyncio.create_task(_expire(access, timedelta(days=settings.log_days)))
        yield
        watch.cancel()
        following.cancel()
        telling.cancel()
        expiry.cancel()
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


async def _watch(
    promoted: PromotedRouter, policy: Policy, metrics: Metrics, ledger: LedgerAccess, completions: Completions
) -> None:
    """Take over promotions: a new bundle is verified in a thread while the old one answers. And say what is wrong."""
    left_out: set[str] = set()
    while True:
        left_out = _tell_left_out(set(completions.left_out()), left_out, metrics)
        metrics.degraded.set(promoted.problem is not None)
        metrics.ledger_degraded.set(ledger.problem is not None)
        await asyncio.sleep(_LOOK_EVERY_S)
        if ledger.opened is None:
            await _open(ledger)
        try:
            taken = await asyncio.to_thread(promoted.refresh)
            if taken:
                _expect(promoted, policy, metrics)
        except Exception:
            logger.exception("looking for a promotion failed")
            promoted.problem, taken = "looking for a promotion failed; the log says why", False
        if taken is not None:
            metrics.reloads.labels(outcome="taken" if taken else "refused").inc()
            _settle_garbage_collection()


def _tell_left_out(now: set[str], before: set[str], metrics: Metrics) -> set[str]:
    """Which models are left out; gives them."""
    for model in now - before:
        logger.warning("calls to %s fail; it is left out", model)
    for model in before - now:
        logger.warning("%s answers again", model)
    for model in now ^ before:
        metrics.left_out.labels(model).set(model in now)
    return now


async def _follow(spending: Spending, keys: KeyRing) -> None:
    """Take over keys and budgets that were set."""
    while True:
        try:
            await asyncio.to_thread(keys.refresh)
            await asyncio.to_thread(spending.refresh)
        except LedgerError as error:  # the keys and budgets known so far hold
            logger.error("keys and budgets could not be read: %s", error)
        except Exception:
            logger.exception("following keys and budgets failed; it is tried again")
        await asyncio.sleep(_LOOK_EVERY_S)


async def _tell(spending: Spending) -> None:
    """Tell of budgets that are spent, while keys and budgets are followed: a webhook may take its time."""
    while True:
        try:
            await asyncio.to_thread(spending.tell)
        except Exception:
            logger.exception("telling of budgets failed; it is tried again")
        await asyncio.sleep(_LOOK_EVERY_S)


async def _expire(ledger: LedgerAccess, kept: timedelta) -> None:
    """Delete old decisions and feedback now and then; of several workers, the first one finds something to do."""
    while True:
        if ledger.opened is None:
            await asyncio.sleep(_LOOK_EVERY_S)
            continue
        try:
            await asyncio.to_thread(ledger.opened.expire, datetime.now(UTC) - kept)
        except LedgerError as error:
            logger.error("old decisions could not be deleted: %s", error)
        await asyncio.sleep(_EXPIRE_EVERY_S)


async def _open(ledger: LedgerAccess) -> None:
    with contextlib.suppress(LedgerError):  # it was logged, /status says so, and it is tried again
        await asyncio.to_thread(ledger.store)


def _expect(promoted: PromotedRouter, policy: Policy, metrics: Metrics) -> None:
    with contextlib.suppress(InputError):  # a router that cannot follow the policy serves none of it to compare
        metrics.expect(promoted.router.expected(policy))


def _settle_garbage_collection() -> None:
    """Keep what is loaded out of the collector's walks, which otherwise stop a worker for tens of milliseconds.

    Thresholds: fewer walks than CPython's 700, 10, 10, measured as p99 106 → 5 ms at 16 requests at once, when BentoML
    still left a timer for each.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
