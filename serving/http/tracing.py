"""Spans of a request and its attempts, by the names that OpenTelemetry has for generative AI.

Source: OpenTelemetry semantic conventions for generative client AI spans, in development as of November 2026.
They are made when the answer is at its end, from what was noted of it: no request waits for one.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from serving import __version__
from serving.errors import ConfigurationError
from serving.http.followed import Followed
from serving.ledger.events import Event

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from opentelemetry.util.types import AttributeValue

_EXPORTERS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_OPERATIONS: Final = {"/v1/embeddings": "embeddings"}
_CHAT: Final = "chat"
_OPENAI: Final = "openai"
"""By whose API a provider is called, where the settings do not say who it is."""


class Tracing:
    """Exports spans. close: what waits is sent first."""

    def __init__(self, tracer: "Tracer", close: Callable[[], None]) -> None:
        self._tracer = tracer
        self.close = close

    def tell(self, of: Followed) -> None:
        """A span of the request, in the caller's trace if it has one, and one of each attempt below it."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        around = TraceContextTextMapPropagator().extract({} if of.trace is None else {"traceparent": of.trace})
        server = self._tracer.start_span(
            f"POST {of.endpoint}", around, SpanKind.SERVER, start_time=of.began_ns, attributes=_of_request(of)
        )
        if of.status >= 500:
            server.set_status(Status(StatusCode.ERROR))
        for event in of.events:
            operation = _OPERATIONS.get(of.endpoint, _CHAT)
            began_ns = round(event.time.timestamp() * 1e9)
            attempt = self._tracer.start_span(
                f"{operation} {event.model_asked}", set_span_in_context(server), SpanKind.CLIENT, start_time=began_ns,
                attributes=_of_attempt(event, operation),
            )  # fmt: skip
            if event.status == "error":
                attempt.set_status(Status(StatusCode.ERROR))
            attempt.end(began_ns + 10**6 * (event.latency_ms or 0))
        server.end(of.began_ns + round(1e9 * of.seconds))


def tracing() -> Tracing | None:
    """Where the environment names an exporter; None otherwise, and nothing of it is loaded.

    Raises ConfigurationError where the exporter is not installed.
    """
    if not any(os.environ.get(name) for name in _EXPORTERS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ConfigurationError(
            "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and what sends them is not installed: "
            "pip install 'tierwise[otel]'"
        ) from None
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "tierwise")}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider.get_tracer("tierwise", __version__), provider.shutdown)


def _of_request(of: Followed) -> "dict[str, AttributeValue]":
    found: dict[str, AttributeValue] = {
        "http.request.method": "POST", "http.route": of.endpoint, "http.response.status_code": of.status,
    }  # fmt: skip
    if (decision := of.decision) is not None:
        found |= {
            "tierwise.decision.id": decision.id, "tierwise.decision.tier": decision.tier,
            "tierwise.decision.reason": decision.reason, "tierwise.router": decision.router,
        }  # fmt: skip
    return found


def _of_attempt(event: Event, operation: str) -> "dict[str, AttributeValue]":
    usage = event.usage
    found: dict[str, AttributeValue | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": event.provider or _OPENAI,
        "gen_ai.request.model": event.model_asked,
        "gen_ai.response.model": event.model,
        "gen_ai.response.id": event.completion_id,
        "gen_ai.usage.input_tokens": None if usage is None else usage.input_tokens,
        "gen_ai.usage.output_tokens": None if usage is None else usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": None if usage is None else usage.cached_input_tokens,
        "error.type": event.error,
        "tierwise.tier": event.tier,
    }
    return {name: value for name, value in found.items() if value is not None}
