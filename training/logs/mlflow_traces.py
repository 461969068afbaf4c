"""How does a trace of MLflow become rows of a log? One row for each call of a model in it.

The form is that of MLflow 2 and 3, `Trace.to_json()`: a trace has `info`, with its assessments, and spans. Libraries
that MLflow traces put the request into the inputs of a span of type CHAT_MODEL or LLM and the answer into its outputs,
each in the form of its own API.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args

from mlflow.entities import Assessment, Span, SpanStatusCode, SpanType, Trace
from mlflow.exceptions import MlflowException
from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey

from serving.chat import TEXT_PARTS
from serving.errors import InputError
from serving.ledger.feedback import FeedbackKind

OUTCOME: Final = "acceptable"
TIER: Final = "tierwise.tier"
PROPENSITY: Final = "tierwise.propensity"
COST_USD: Final = "tierwise.cost_usd"
ATTRIBUTION: Final = ("team", "feature", "task")
"""Tags of a trace, as they are or with `tierwise.` before them."""

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MODEL_CALLS: Final = (SpanType.CHAT_MODEL, SpanType.LLM)
_LANGCHAIN_ROLES: Final = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}
_WORDS: Final = {"yes": True, "true": True, "pass": True, "no": False, "false": False, "fail": False}
_KINDS: Final = get_args(FeedbackKind)


@dataclass
class TraceReport:
    """What was found besides rows. It grows while traces are read."""

    other_assessments: Counter[str] = field(default_factory=Counter)
    about_several_calls: int = 0
    """Outcomes of traces with more than one call of a model: of which call they are cannot be told."""


def trace_of(text: str) -> Trace:
    """The trace in a JSON text, of MLflow 2 or 3. Raises InputError."""
    try:
        return Trace.from_json(text)
    except (MlflowException, AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"is no trace of MLflow: {type(error).__name__}") from None


def rows_of(trace: Trace, outcome: str, report: TraceReport) -> Iterator[dict[str, object] | InputError]:
    """A row of a log (docs/log-format.md) for each call of a model in a trace, or why there is none.

    outcome: name of the assessment that says how the answer was; the last one counts.
    """
    calls = _calls(trace.data.spans)
    if not calls:
        yield InputError("has no span of type CHAT_MODEL or LLM")
    judged = _judged(trace, outcome, report)
    for call in calls:
        about = [one for one in judged if one.span_id == call.span_id or (one.span_id is None and len(calls) == 1)]
        try:
            yield _row(trace, call, about[-1] if about else None, alone=len(calls) == 1)
        except InputError as error:
            yield error
    if len(calls) > 1:
        report.about_several_calls += any(one.span_id is None for one in judged)


def _calls(spans: Sequence[Span]) -> list[Span]:
    """Calls of a model, of those inside each other the inner ones: a framework's span has its client's within."""
    found = [span for span in spans if span.span_type in _MODEL_CALLS]
    parents = {span.span_id: span.parent_id for span in spans}
    outer = set()
    for span in found:
        above = span.parent_id
        while above is not None and above not in outer:
            outer.add(above)
            above = parents.get(above)
    return [span for span in found if span.span_id not in outer]


def _judged(trace: Trace, outcome: str, report: TraceReport) -> list[Assessment]:
    """Assessments of that name, oldest first."""
    found = []
    for one in trace.info.assessments:
        if one.feedback is None or one.feedback.value is None or one.feedback.error or one.valid is False:
            continue  # withdrawn, or of a judge that failed
        if one.name == outcome:
            found.append(one)
        else:
            report.other_assessments[one.name] += 1
    return sorted(found, key=lambda one: one.last_update_time_ms or one.create_time_ms or 0)


def _row(trace: Trace, span: Span, judged: Assessment | None, *, alone: bool) -> dict[str, object]:
    """Raises InputError when the span holds no request, or no answer."""
    if span.status.status_code == SpanStatusCode.ERROR:
        raise InputError(f"{span.name}: failed, and has no answer to learn from")
    inputs, outputs = span.inputs, span.outputs
    asked, answered = _mapping(inputs), _mapping(outputs)
    cost = span.get_attribute(COST_USD) or _mapping(span.get_attribute(SpanAttributeKey.LLM_COST)).get("total_cost")
    return {
        "id": trace.info.trace_id if alone else f"{trace.info.trace_id}/{span.span_id}",
        "time": _time(span),
        **_request(inputs),
        "tools": asked.get("tools") or span.get_attribute(SpanAttributeKey.CHAT_TOOLS),
        "response_format": asked.get("response_format"),
        "metadata": _metadata(trace),
        "model": answered.get("model") or span.model_name or asked.get("model"),
        "tier": span.get_attribute(TIER),
        "propensity": span.get_attribute(PROPENSITY),
        "response": _response(outputs),
        "usage": _usage(span.get_attribute(SpanAttributeKey.CHAT_USAGE)),
        "cost_usd": f"{cost:.12f}" if isinstance(cost, float) else cost,
        "latency_s": ((span.end_time_ns or span.start_time_ns) - span.start_time_ns) / 1e9 or None,  # 0: not told
        **({} if judged is None else _outcome(judged)),
    }


def _request(inputs: Any) -> dict[str, object]:
    """`messages` or `prompt`, of the inputs of OpenAI's two APIs, Anthropic's and LangChain's."""
    asked = inputs if isinstance(inputs, Mapping) else {"input": inputs}
    said = next((asked[name] for name in ("messages", "input", "prompt", "contents") if asked.get(name)), None)
    if isinstance(said, list) and len(said) == 1 and isinstance(said[0], list):
        said = said[0]  # LangChain's batches of one
    before = asked.get("system") or asked.get("instructions")
    if isinstance(said, str):
        if not before:
            return {"prompt": said}
        said = [{"role": "user", "content": said}]
    if not isinstance(said, list):
        raise InputError("holds no text of a request: no messages, input, prompt or contents")
    messages = [_message(one) for one in said]
    return {"messages": [{"role": "system", "content": before}, *messages] if before else messages}


def _message(message: Any) -> Any:
    kind = _mapping(message).get("type")
    if isinstance(kind, str) and kind in _LANGCHAIN_ROLES and "role" not in message:
        return {"role": _LANGCHAIN_ROLES[kind], "content": message.get("content")}
    return message


def _response(outputs: Any) -> str | None:
    """The text of an answer; None where it is of a form that is not known, or calls a tool."""
    if isinstance(outputs, str | None):
        return outputs
    if not isinstance(outputs, Mapping):
        return _text(outputs)
    for choice in _list(outputs.get("choices")):  # OpenAI's chat completions
        return _text(_mapping(choice.get("message")).get("content") or choice.get("text"))
    for item in _list(outputs.get("output")):  # its responses
        if item.get("type") == "message":
            return _text(item.get("content"))
    for generation in _list(outputs.get("generations")):  # LangChain's
        return _text(generation.get("text"))
    return _text(outputs.get("content"))  # Anthropic's, and a message


def _time(span: Span) -> str:
    """Raises InputError when it is in no calendar."""
    try:
        return (_EPOCH + timedelta(microseconds=span.start_time_ns // 1_000)).isoformat()
    except OverflowError:
        raise InputError(f"{span.name}: begins at {span.start_time_ns} ns, which is in no calendar") from None


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _list(found: Any) -> list[Mapping[str, Any]]:
    found = found[0] if isinstance(found, list) and found and isinstance(found[0], list) else found
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    parts = [part.get("text") for part in _list(content) if str(part.get("type")) in TEXT_PARTS]
    return "".join(part for part in parts if isinstance(part, str)) or None


def _usage(usage: Any) -> dict[str, object] | None:
    told = _mapping(usage)
    return {name: told[name] for name in ("input_tokens", "output_tokens") if name in told} or None


def _metadata(trace: Trace) -> dict[str, object]:
    info = trace.info
    named = {**_mapping(info.trace_metadata), **_mapping(info.tags)}
    found = {name: named.get(f"tierwise.{name}", named.get(name)) for name in ATTRIBUTION}
    found["session_id"] = _mapping(info.trace_metadata).get(TraceMetadataKey.TRACE_SESSION)
    return {name: value for name, value in found.items() if value is not None}


def _outcome(judged: Assessment) -> dict[str, object]:
    """Raises InputError when it says neither whether nor how good."""
    value = None if judged.feedback is None else judged.feedback.value
    if isinstance(value, str) and value in _KINDS:
        comment = {} if judged.rationale is None else {"comment": judged.rationale}
        return {"feedback": {"kind": value, **comment}}
    if isinstance(value, str):
        value = _WORDS.get(value.strip().lower(), value)
    if isinstance(value, bool):
        return {"acceptable": value}
    if isinstance(value, int | float) and 0 <= value <= 1:
        return {"score": value}
    raise InputError(
        f"its assessment {judged.name!r} is no outcome: give true or false, yes or no, a grade from 0 to 1, or one of "
        f"{', '.join(_KINDS)}"
    )
