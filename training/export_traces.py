"""The request log as MLflow's traces: one a decision, its calls as spans, what was thought of them as assessments."""

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from mlflow.entities import (
    Assessment,
    AssessmentSource,
    AssessmentSourceType,
    Span,
    SpanType,
    Trace,
    TraceData,
    TraceInfo,
    TraceLocation,
    TraceState,
)
from mlflow.entities import Feedback as Judgement
from mlflow.tracing.constant import SpanAttributeKey, TokenUsageKey, TraceMetadataKey, TraceTagKey

from serving.errors import InputError
from serving.ledger.events import Event, Kind
from serving.ledger.request_log import Logged, LoggedDecision
from serving.ledger.store import LedgerStore
from serving.ledger.usage import Usage
from serving.tiers import PICO_PER_USD
from training.fitting.from_ledger import named_calls
from training.logs.mlflow_traces import ATTRIBUTION, COST_USD, OUTCOME, PROPENSITY, TIER
from training.private_file import private_file
from training.registry import Registry
from training.trace_store import PREFIX, store_traces

_NAME: Final = "request"
_LONGEST_ID: Final = 50  # what the columns of MLflow's store hold, which Postgres insists on
_LONGEST_PREVIEW: Final = 1_000
_SPAN_TYPES: Final[dict[Kind, str]] = {
    "call": SpanType.CHAT_MODEL,
    "batch_line": SpanType.CHAT_MODEL,
    "judge": SpanType.EVALUATOR,
    "embedding": SpanType.EMBEDDING,
    "cache_hit": SpanType.MEMORY,
}
_ANSWERING: Final = ("call", "batch_line", "cache_hit")
_USAGE: Final = {
    TokenUsageKey.INPUT_TOKENS: "input_tokens",
    TokenUsageKey.OUTPUT_TOKENS: "output_tokens",
    TokenUsageKey.CACHE_READ_INPUT_TOKENS: "cached_input_tokens",
    TokenUsageKey.CACHE_CREATION_INPUT_TOKENS: "cache_write_tokens",
    TokenUsageKey.CACHE_CREATION_INPUT_TOKENS_ABOVE_1HR: "cache_write_1h_tokens",
}


def export_traces(store: LedgerStore, out: str, home: Path, since: datetime, until: datetime) -> int:
    """Write the decisions of that time and say how many.

    out: a file of JSON lines, each as `Trace.to_json()` writes it, or `experiment:NAME` of the tracking store, where
    a trace that is there already gets what is new. Raises InputError when it cannot be written.
    """
    found = (logged for logged in store.logged() if since <= logged.decision.time < until)
    if out.startswith(PREFIX):
        name = out.removeprefix(PREFIX)
        return store_traces(Registry(home), name, lambda id_: (_trace(logged, id_) for logged in found))
    if not out.endswith(".jsonl"):
        raise InputError(f"must end in .jsonl, or be {PREFIX}NAME", where=out)
    written = 0
    with private_file(Path(out)) as file:
        for logged in found:
            file.write(_trace(logged, "0").to_json() + "\n")
            written += 1
    return written


def _trace(logged: Logged, experiment: str) -> Trace:
    decision = logged.decision
    trace_id = _id(decision, "trace", 16)
    spans = list(_spans(logged, trace_id))
    end = max(time for span in spans for time in (span.start_time_ns, span.end_time_ns or 0))
    tags = {f"tierwise.{name}": getattr(decision, name) for name in ATTRIBUTION}
    metadata = {TraceMetadataKey.TRACE_USER: decision.user, TraceMetadataKey.TRACE_SESSION: decision.session_id}
    own = decision.request_id or decision.id
    unanswered = bool(logged.calls) and all(call.status in ("error", "cancelled") for call in logged.calls)
    info = TraceInfo(
        trace_id=f"tr-{trace_id.hex()}",
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=_ns(decision.time) // 10**6,
        execution_duration=(end - _ns(decision.time)) // 10**6,
        state=TraceState.ERROR if unanswered else TraceState.OK,
        client_request_id=own if len(own) <= _LONGEST_ID else None,
        request_preview=None if decision.request is None else decision.request[:_LONGEST_PREVIEW],
        tags={TraceTagKey.TRACE_NAME: _NAME, **_known(tags)},
        trace_metadata=_known(metadata),
        assessments=list(_assessments(logged, f"tr-{trace_id.hex()}")),
    )
    return Trace(info, TraceData(spans))


def _spans(logged: Logged, trace_id: bytes) -> Iterator[Span]:
    """The request, the decision within it, and each call."""
    decision = logged.decision
    asked = None if decision.request is None else json.loads(decision.request)
    root = _id(decision, "request", 8)
    begun = _ns(decision.time)
    last = max([begun, *(_end(call) for call in logged.calls)])
    whole = {SpanAttributeKey.SPAN_TYPE: SpanType.CHAIN, SpanAttributeKey.INPUTS: asked}
    yield _span(trace_id, root, None, _NAME, begun, last, whole)
    seen = {
        SpanAttributeKey.SPAN_TYPE: SpanType.CHAIN,
        SpanAttributeKey.OUTPUTS: {"tier": decision.tier, "model": decision.model, "reason": decision.reason},
        "tierwise.decision": decision.id,
        "tierwise.router": decision.router,
        "tierwise.policy": decision.policy,
        "tierwise.threshold": decision.threshold,
        "tierwise.probabilities": dict(decision.probabilities),
        PROPENSITY: decision.propensity,
    }
    yield _span(trace_id, _id(decision, "route", 8), root, "route", begun, begun, seen)
    for call in logged.calls:
        made = {
            SpanAttributeKey.SPAN_TYPE: _SPAN_TYPES[call.kind],
            SpanAttributeKey.MODEL: call.model,
            SpanAttributeKey.MODEL_PROVIDER: call.provider,
            SpanAttributeKey.CHAT_USAGE: _usage(call.usage),
            # A float, as MLflow's page wants it; what is read back is COST_USD, with all its digits.
            SpanAttributeKey.LLM_COST: None if call.cost is None else {"total_cost": call.cost.pico_usd / PICO_PER_USD},
            COST_USD: None if call.cost is None else f"{Decimal(call.cost.pico_usd) / PICO_PER_USD:f}",
            TIER: call.tier,
            PROPENSITY: decision.propensity if call.tier == decision.tier else None,
            "tierwise.wasted": call.wasted or None,
            "tierwise.error": call.error,
            SpanAttributeKey.INPUTS: asked if call.kind in _ANSWERING else None,
        }
        id_, ok = _call_id(decision, call), call.status == "ok"
        yield _span(trace_id, id_, root, call.kind, _ns(call.time), _end(call), made, ok=ok)


def _span(
    trace_id: bytes,
    id_: bytes,
    parent: bytes | None,
    name: str,
    start_ns: int,
    end_ns: int,
    attributes: Mapping[str, Any],
    *,
    ok: bool = True,
) -> Span:
    written = {SpanAttributeKey.REQUEST_ID: f"tr-{trace_id.hex()}", **_known(attributes)}
    return Span.from_dict({
        "trace_id": base64.b64encode(trace_id).decode(),
        "span_id": base64.b64encode(id_).decode(),
        "parent_span_id": None if parent is None else base64.b64encode(parent).decode(),
        "name": name,
        "start_time_unix_nano": start_ns,
        "end_time_unix_nano": end_ns,
        "events": [],
        "status": {"code": "STATUS_CODE_OK" if ok else "STATUS_CODE_ERROR", "message": ""},
        "attributes": {key: json.dumps(value, ensure_ascii=False) for key, value in written.items()},
    })  # fmt: skip


def _assessments(logged: Logged, trace_id: str) -> Iterator[Assessment]:
    """Under one name, whichever of three ways it was said, so that the last of them counts."""
    decision, named = logged.decision, named_calls(logged.decision, logged.calls)
    for given in logged.feedback:
        told_ms = _ns(given.time) // 10**6
        said = given.kind or (given.score if given.acceptable is None else given.acceptable)
        about = named.get(given.id)
        judgement = Judgement(
            name=OUTCOME,
            value=said,
            source=AssessmentSource(AssessmentSourceType.HUMAN, given.id),
            rationale=given.comment,
            trace_id=trace_id,
            span_id=None if about is None else _call_id(decision, about).hex(),
            create_time_ms=told_ms,
            last_update_time_ms=told_ms,
        )
        judgement.assessment_id = f"a-{_id(decision, f'{given.id} {given.time} {said}', 16).hex()}"
        yield judgement


def _id(decision: LoggedDecision, what: str, size: int) -> bytes:
    """The same every time, so that a trace that is written again is the same one."""
    return sha256("\0".join((decision.tenant, decision.id, what)).encode()).digest()[:size]


def _call_id(decision: LoggedDecision, call: Event) -> bytes:
    return _id(decision, f"call {call.key}", 8)


def _usage(usage: Usage | None) -> dict[str, int] | None:
    counts = {} if usage is None else {name: getattr(usage, ours) for name, ours in _USAGE.items()}
    known = _known(counts)
    if TokenUsageKey.INPUT_TOKENS in known and TokenUsageKey.OUTPUT_TOKENS in known:
        known[TokenUsageKey.TOTAL_TOKENS] = known[TokenUsageKey.INPUT_TOKENS] + known[TokenUsageKey.OUTPUT_TOKENS]
    return known or None


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _end(call: Event) -> int:
    return _ns(call.time + timedelta(milliseconds=call.latency_ms or 0))


def _ns(time: datetime) -> int:
    since = time - datetime.fromtimestamp(0, time.tzinfo)
    return (since // timedelta(microseconds=1)) * 1_000
