"""The web application that BentoML mounts: routes, error shapes, and the watch on promotions."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from serving.errors import BudgetError, InputError, LedgerError
from serving.http.decisions import Decisions
from serving.http.docs import docs_routes
from serving.http.errors import (
    on_budget_error,
    on_client_gone,
    on_http_error,
    on_input_error,
    on_ledger_error,
    on_unexpected_error,
)
from serving.http.feedback import FeedbackResource
from serving.http.ledger import LedgerResource
from serving.http.metrics import CountRequests, Metrics, metrics_route
from serving.http.status import status_route
from serving.ledger.access import LedgerAccess
from serving.redaction import load_redaction
from serving.request_log import RequestLog
from serving.routing.policy import Policy
from serving.routing.promoted import PromotedRouter
from serving.routing.rules import NO_RULES, Rules
from serving.settings import Settings
from serving.spending import Spending

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0
_EXPIRE_EVERY_S: Final = 3600.0
_PROBES: Final = ("/healthz", "/livez", "/readyz")  # BentoML answers them, and leaves other methods to us
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


def build_app(
    settings: Settings, promoted: PromotedRouter, policy: Policy, metrics: Metrics, rules: Rules = NO_RULES
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
    decisions = Decisions(promoted, settings, policy, metrics, rules, kept_in, spending)
    feedback = FeedbackResource(access, log, metrics)
    ledger = LedgerResource(access, settings, metrics, lambda: promoted.router.tiers)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        promoted.refresh()
        _expect(promoted, policy, metrics)
        await _open(access)
        _settle_garbage_collection()
        watch = asyncio.create_task(_watch(promoted, policy, metrics, access))
        budgets = asyncio.create_task(_follow(spending))
        expiry = asyncio.create_task(_expire(access, timedelta(days=settings.log_days)))
        yield
        watch.cancel()
        budgets.cancel()
        expiry.cancel()
        await asyncio.to_thread(access.close)

    routes = [
        *decisions.routes(), *ledger.routes(), *feedback.routes(),
        status_route(promoted, access), metrics_route(), *docs_routes(settings),
    ]  # fmt: skip
    allowed = {route.path: sorted(route.methods or ()) for route in routes}
    allowed |= {path: ["GET", "HEAD"] for path in _PROBES}
    count = Middleware(CountRequests, metrics=metrics, paths=frozenset(allowed))

    async def anything_else(request: Request) -> Response:
        """Every path, so that BentoML's index page, which loads a tag manager, is not one of ours."""
        path = request.url.path
        if path in allowed:
            raise HTTPException(405, f"{path} takes {', '.join(allowed[path])}", {"Allow": ", ".join(allowed[path])})
        raise HTTPException(404, f"there is no {path}")

    return Starlette(
        routes=[*routes, Route("/{path:path}", anything_else, methods=_METHODS)],
        middleware=[count],
        exception_handlers={
            InputError: on_input_error,
            LedgerError: on_ledger_error,
            BudgetError: on_budget_error,
            HTTPException: on_http_error,
            ClientDisconnect: on_client_gone,
            Exception: on_unexpected_error,
        },
        lifespan=lifespan,
    )


async def _watch(promoted: PromotedRouter, policy: Policy, metrics: Metrics, ledger: LedgerAccess) -> None:
    """Take over promotions: a new bundle is verified in a thread while the old one answers. And say what is wrong."""
    while True:
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


async def _follow(spending: Spending) -> None:
    """Take over budgets that were set, and tell of those that are spent."""
    while True:
        with contextlib.suppress(LedgerError):  # `problem` says so; the budgets known so far hold
            await asyncio.to_thread(spending.refresh)
        await asyncio.sleep(_LOOK_EVERY_S)


async def _expire(ledger: LedgerAccess, kept: timedelta) -> None:
    """Delete old decisions and feedback now and then; of several workers, the first one finds something to do."""
    while True:
        if ledger.opened is not None:
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

    The timeout middleware leaves a timer for every request, so full collections come often without this.
    Thresholds: fewer walks than CPython's 700, 10, 10, measured as p99 106 → 5 ms at 16 requests at once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
