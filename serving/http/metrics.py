"""What the service counts. No label carries what a client sent: an unknown path is `unmatched`, whatever it was."""

import os
import re
import time
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.ledger.events import Event
from serving.routing.router import Decision, Expected
from serving.tiers import PICO_PER_USD

_ATTEMPT_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_NO_TIER: Final = "none"
_STATUS: Final = re.compile(r"_(\d)\d\d$")  # a provider may answer with any


class Metrics:
    """Created once per worker, after BentoML has said where its processes keep their counts."""

    def __init__(self) -> None:
        self.requests = Counter("tierwise_requests", "HTTP requests", ["endpoint", "status"])
        self.seconds = Histogram("tierwise_request_seconds", "Time to the end of the answer", ["endpoint"])
        self.decisions = Counter("tierwise_decisions", "Routing decisions", ["tier", "reason"])
        self.session_failures = Counter("tierwise_session_failures", "Times a session's tier could not be read or kept")
        self.reloads = Counter("tierwise_router_reloads", "Promotions taken over or refused", ["outcome"])
        self.degraded = Gauge(
            "tierwise_router_degraded",
            "1 while the promoted router or its encoder cannot be used",
            multiprocess_mode="livemax",
        )
        self.ledger_events = Counter("tierwise_ledger_events", "Events recorded", ["kind", "status"])
        self.attempts = Counter("tierwise_upstream_attempts", "Attempts at providers", ["tier", "outcome"])
        self.attempt_seconds = Histogram(
            "tierwise_upstream_seconds", "Time to the end of an attempt", ["tier"], buckets=_ATTEMPT_S
        )
        self.tokens = Counter("tierwise_tokens", "Tokens of attempts, where known", ["tier", "direction"])
        self.cost = Counter("tierwise_cost_usd", "Cost of attempts, where known", ["tier"])
        self.feedback = Counter("tierwise_feedback", "Feedback on answers", ["said", "matched"])
        self.budget_alerts = Counter("tierwise_budget_alerts", "Budgets near their limit, or spent", ["scope", "level"])
        self.log_failures = Counter(
            "tierwise_request_log_failures", "Decisions not kept, or kept without their text", ["cause"]
        )
        self.ledger_degraded = Gauge(
            "tierwise_ledger_degraded", "1 while the ledger cannot be written", multiprocess_mode="livemax"
        )
        self.left_out = Gauge(
            "tierwise_model_left_out",
            "1 while a worker does not ask a model since calls to it fail",
            ["model"],
            multiprocess_mode="livemax",
        )
        self.served = Summary("tierwise_served", "What the default policy decided alone", ["of"])
        self.expected = Gauge(
            "tierwise_expected",
            "The same on the prompts its promise rests on",
            ["of"],
            multiprocess_mode="livemostrecent",
        )

    def count_event(self, event: Event) -> None:
        """Count an event that is settled."""
        self.ledger_events.labels(kind=event.kind, status=event.status).inc()

    def count_attempt(self, event: Event) -> None:
        """Count an attempt that is over; to the cent and beyond, the ledger counts."""
        tier = event.tier or _NO_TIER
        outcome = event.status if event.error is None else _STATUS.sub(r"_\1xx", event.error)
        self.attempts.labels(tier, outcome).inc()
        if event.latency_ms is not None:
            self.attempt_seconds.labels(tier).observe(event.latency_ms / 1e3)
        if event.usage is not None:
            self.tokens.labels(tier, "in").inc(event.usage.input_tokens or 0)
            self.tokens.labels(tier, "out").inc(event.usage.output_tokens or 0)
        if event.cost is not None:
            self.cost.labels(tier).inc(event.cost.pico_usd / PICO_PER_USD)

    def expect(self, expected: Expected) -> None:
        """Take over what the router in service expects."""
        for of, value in expected._asdict().items():
            self.expected.labels(of).set(value)

    def count_decision(self, decision: Decision, by_default: bool) -> None:
        """Count a decision; one of the default policy beside what is expected, unless a rule or a fault had its say."""
        self.decisions.labels(tier=decision.tier, reason=decision.reason).inc()
        if by_default and decision.reason in ("policy", "target_refused"):
            top = list(decision.probabilities)[-1]
            self.served.labels("top_share").observe(decision.tier == top)
            self.served.labels("probability").observe(decision.probabilities[decision.tier])
            self.served.labels("top_probability").observe(decision.probabilities[top])


class CountRequests:
    """ASGI middleware in place of BentoML's, whose label is the raw path: a series for each that anybody tries."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            endpoint = scope["path"] if scope["path"] in self._paths else "unmatched"
            self._metrics.requests.labels(endpoint, status).inc()
            self._metrics.seconds.labels(endpoint).observe(time.perf_counter() - started)


def metrics_route() -> Route:
    """`GET /metrics`: the counts of all workers, which BentoML has keep them in one folder."""

    def metrics(_request: Request) -> Response:
        registry = REGISTRY
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", metrics, methods=["GET"])
