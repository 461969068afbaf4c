"""What the service offers, as an OpenAPI 3.1 document: every path, what it takes and what it answers."""

from typing import Final

from pydantic.json_schema import models_json_schema

from serving import __version__
from serving.http.openai_schema import EXAMPLES, SCHEMAS
from serving.http.request_schema import BATCH_EXAMPLES, REQUEST_SCHEMAS, ROUTE_EXAMPLES, Json, ref
from serving.http.status import Status
from serving.http.systemone_schema import SYSTEM_ONE_EXAMPLES, SYSTEM_ONE_SCHEMAS
from serving.ledger.feedback import JUDGED, GivenFeedback
from serving.ledger.recorded import RecordedCall
from serving.ledger.report import DIMENSIONS, MOST_DAYS
from serving.routing.router import Decision, ExplainedDecision
from serving.settings import Settings

_ABOUT: Final = """\
Which model tier is enough for a prompt. Send the request you would send to a model, or only its text, to `/route`.

A path that is not listed answers 404 and another method 405, both in the shape of every error."""


def document(settings: Settings) -> Json:
    """The document of a service with these settings, whose limits it states."""
    _, models = models_json_schema(
        [(model, "serialization") for model in (Decision, ExplainedDecision, Status)],
        ref_template="#/components/schemas/{model}",
    )
    feedback = GivenFeedback.model_json_schema(ref_template="#/components/schemas/{model}")
    feedback["oneOf"] = [
        {"required": [one], "properties": {name: {"type": "null"} for name in JUDGED if name != one}
         | {one: {"not": {"type": "null"}}}} for one in JUDGED
    ]  # fmt: skip
    call = RecordedCall.model_json_schema(ref_template="#/components/schemas/{model}")
    batch = _batch_request(settings.max_batch_requests)
    answers = {"BatchAnswer": _BATCH_ANSWER, "Error": _ERROR, "ErrorDetail": _ERROR_DETAIL}
    answers |= {"RecordedCall": call, "LedgerEvent": _LEDGER_EVENT, "LedgerReport": _LEDGER_REPORT}
    answers |= {"GivenFeedback": feedback, "Feedback": _FEEDBACK}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tierwise",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/route": {"post": _route(settings.max_request_bytes)},
            "/route/batch": {"post": _route_batch(settings.max_batch_bytes)},
            "/ledger/events": {"post": _record(settings.max_request_bytes)},
            "/ledger/report": {"get": _report()},
            "/v1/chat/completions": {"post": _call("chat_completions", "ChatCompletionRequest")},
            "/v1/responses": {"post": _call("responses", "ResponseRequest")},
            "/v1/embeddings": {"post": _call("embeddings", "EmbeddingRequest")},
            "/v1/models": {"get": _get("models", "What can be asked for", "`auto` and models by name", ref("Models"))},
            "/v1/systemone": {"post": _systemone()},
            "/v1/feedback": {"post": _feedback()},
            "/status": {"get": _get("status", "What serves", "The router, its tiers and any problem", ref("Status"))},
            "/metrics": {"get": _get("metrics", "What the service counts", "All workers' counts, for Prometheus")},
            "/healthz": {"get": _get("healthz", "The same as /livez", "It is")},
            "/livez": {"get": _get("livez", "Whether a worker is alive", "It is")},
            "/readyz": {"get": _ready()},
            "/openapi.json": {"get": _get("openapi", "This document", "OpenAPI 3.1", {"type": "object"})},
            "/docs": {"get": _get("docs", "This document as a page", "Needs no script", media="text/html")},
        },
        "components": {
            "schemas": {
                **REQUEST_SCHEMAS,
                **SCHEMAS,
                **SYSTEM_ONE_SCHEMAS,
                "BatchRequest": batch,
                **answers,
                **models["$defs"],
            }
        },
    }


def _route(max_bytes: int) -> Json:
    return {
        "operationId": "route",
        "summary": "The tier for one request",
        "description": f"At most {max_bytes:,} bytes. The decision says what to call; nothing is called.",
        "requestBody": _body(ref("RouteRequest"), ROUTE_EXAMPLES),
        "responses": {
            "200": _answer("The decision, with an explanation if asked for", _DECISION),
            **_REFUSALS,
            "429": _NO_MONEY,
        },
    }


def _route_batch(max_bytes: int) -> Json:
    return {
        "operationId": "route_batch",
        "summary": "The tiers for many requests, decided by one router",
        "description": f"At most {max_bytes:,} bytes. A request that is wrong has an `error` in its place.",
        "requestBody": _body(ref("BatchRequest"), BATCH_EXAMPLES),
        "responses": {"200": _answer("A decision or an error for each, in order", ref("BatchAnswer")), **_REFUSALS},
    }


def _call(name: str, schema: str) -> Json:
    answer = _answer("As the provider answered", ref("Answer"))
    answer["content"]["text/event-stream"] = {"schema": {}}
    examples = {"example": {"summary": "Routed, where it says auto", "value": EXAMPLES[schema]}}
    return {
        "operationId": name,
        "summary": f"As OpenAI's {name.replace('_', ' ')}",
        "description": "What a provider refuses is passed on as it came.",
        "requestBody": _body(ref(schema), examples),
        "responses": {
            "200": answer,
            **_REFUSALS,
            "404": _answer("There is no such model", ref("Error")),
            "429": _NO_MONEY,
            "502": _answer("No provider gave an answer", ref("Error")),
            "504": _answer("No answer began in time", ref("Error")),
            "503": _answer("Models fail and none is asked for now, or the ledger cannot be written", ref("Error")),
        },
    }


def _systemone() -> Json:
    return {
        "operationId": "systemone",
        "summary": "A decision in the form that LiteLLM asks of an outside classifier",
        "description": "Labels are the ladder's names in any order, or as many others, cheapest first. `confidence` is "
        "P(acceptable) at the chosen tier.",
        "requestBody": _body(ref("SystemOneRequest"), SYSTEM_ONE_EXAMPLES),
        "responses": {
            "200": _answer("The label of the tier that is enough", ref("SystemOneAnswer")),
            **_REFUSALS,
            "429": _NO_MONEY,
        },
    }


def _record(max_bytes: int) -> Json:
    key = {"name": "Idempotency-Key", "in": "header", "required": False,
           "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]+$"}}  # fmt: skip
    return {
        "operationId": "record",
        "summary": "Record a call that was made elsewhere",
        "description": f"At most {max_bytes:,} bytes. Answered once the event would survive a crash.",
        "parameters": [key],
        "requestBody": _body(ref("RecordedCall"), _CALL_EXAMPLES),
        "responses": {"200": _answer("What was recorded", ref("LedgerEvent")), **_REFUSALS, "503": _UNWRITTEN},
    }


def _feedback() -> Json:
    return {
        "operationId": "feedback",
        "summary": "What somebody thought of an answer, or did about it",
        "description": "It reaches the next `tierwise train --logs ledger`. The last about an answer counts.",
        "requestBody": _body(ref("GivenFeedback"), _FEEDBACK_EXAMPLES),
        "responses": {"200": _answer("It is kept", ref("Feedback")), **_REFUSALS, "503": _UNWRITTEN},
    }


def _report() -> Json:
    schemas: dict[str, Json] = {
        "days": {"type": "integer", "minimum": 1, "maximum": MOST_DAYS, "default": 7},
        "by": {"enum": list(DIMENSIONS)},
        "tenant": {"type": "string", "minLength": 1, "maxLength": 256},
        "format": {"enum": ["json", "csv"], "default": "json"},
    }
    report = _answer("The report", ref("LedgerReport"))
    report["content"]["text/csv"] = {"schema": {"type": "string"}}
    return {
        "operationId": "report",
        "summary": "What was spent and saved in the last days, today included, in UTC",
        "parameters": [{"name": name, "in": "query", "required": False, "schema": schemas[name]} for name in schemas],
        "responses": {"200": report, "400": _REFUSALS["400"], "503": _UNWRITTEN},
    }


def _get(name: str, summary: str, answer: str, schema: Json | None = None, *, media: str | None = None) -> Json:
    media = media or ("application/json" if schema else "text/plain")
    return {"operationId": name, "summary": summary, "responses": {"200": _answer(answer, schema, media)}}


def _ready() -> Json:
    operation = _get("readyz", "Whether a worker is ready for requests", "It is")
    operation["responses"]["500"] = _answer("Not yet", None, "text/plain")
    return operation


def _body(schema: Json, examples: Json) -> Json:
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}


def _answer(meaning: str, schema: Json | None, media: str = "application/json") -> Json:
    return {"description": meaning, "content": {media: {"schema": schema or {"type": "string"}}}}


def _batch_request(limit: int) -> Json:
    requests = {"type": "array", "minItems": 1, "maxItems": limit, "items": ref("RouteRequest")}
    return {"type": "object", "required": ["requests"], "properties": {"requests": requests}}


_DECISION: Final[Json] = {"anyOf": [ref("ExplainedDecision"), ref("Decision")]}
_ERROR: Final[Json] = {"type": "object", "required": ["error"], "properties": {"error": ref("ErrorDetail")}}
_ERROR_DETAIL: Final[Json] = {
    "type": "object",
    "required": ["message", "type", "param", "code"],
    "properties": {
        "message": {"type": "string", "description": "What was wrong and what is accepted."},
        "type": {
            "enum": ["invalid_request_error", "not_found_error", "api_error", "insufficient_quota", "rate_limit_error"]
        },
        "param": {"type": ["string", "null"], "description": "The offending field: `messages[2].content`."},
        "code": {
            "type": ["string", "null"],
            "description": "`budget_exceeded`, `model_not_found`, `invalid_api_key` …",
        },
    },
}
_REFUSALS: Final[Json] = {
    "400": _answer("Not JSON, or a field that is wrong", ref("Error")),
    "401": _answer("A key is needed, and none came that is known", ref("Error")),
    "403": _answer("The key does not open this, or not this model", ref("Error")),
    "408": _answer("The body took more than a minute to come", ref("Error")),
    "413": _answer("Larger than the limit", ref("Error")),
    "500": _answer("A defect of the service, whose log has the traceback", ref("Error")),
}
_NO_MONEY: Final = _answer("A hard budget of who asks cannot bear the call, or the key comes too often", ref("Error"))
_UNWRITTEN: Final = _answer("The ledger cannot be written or read; nothing was recorded", ref("Error"))
_CALL_EXAMPLES: Final[Json] = {
    "reported": {
        "summary": "As a client of OpenAI has it at hand",
        "value": {
            "model": "gpt-4.1-mini",
            "decision_id": "dec-9f3b",
            "usage": {"prompt_tokens": 812, "completion_tokens": 120, "total_tokens": 932},
            "latency_ms": 940,
            "metadata": {"team": "support", "feature": "summary"},
        },
    },
    "paid": {"summary": "What was paid is known", "value": {"model": "in-house-7b", "cost_usd": "0.00004"}},
}
_FEEDBACK_EXAMPLES: Final[Json] = {
    "judged": {"summary": "Good enough", "value": {"id": "dec-1c9e", "acceptable": True}},
    "asked again": {"summary": "The user wanted another answer", "value": {"id": "dec-1c9e", "kind": "regenerate"}},
}
_FEEDBACK: Final[Json] = {
    "type": "object",
    "required": ["object", "id", "matched"],
    "properties": {
        "object": {"const": "feedback"},
        "id": {"type": "string"},
        "matched": {
            "enum": ["decision", "call", None],
            "description": "what has this id; null where nothing does yet, and it counts once a call is told with it",
        },
    },
}
_USD: Final[Json] = {"type": ["number", "null"], "description": "US dollars, with all digits; null where unknown"}
_LEDGER_EVENT: Final[Json] = {
    "type": "object",
    "required": ["object", "key", "recorded", "tier", "unknown", "cost_usd", "price", "saved_usd"],
    "properties": {
        "object": {"const": "ledger.event"},
        "key": {"type": "string", "description": "the key it has; a new one where none was given"},
        "recorded": {
            "type": "boolean",
            "description": "false: the key was there already, and nothing changed; the rest is what it has",
        },
        "tier": {"type": ["string", "null"]},
        "cost_usd": _USD,
        "unknown": {"enum": ["usage", "price", None], "description": "why the cost is unknown: what was not told"},
        "price": {"type": ["object", "null"], "description": "the price list and the date of the price"},
        "saved_usd": {"type": "object", "description": "by kind of saving"},
    },
}
_LEDGER_REPORT: Final[Json] = {
    "type": "object",
    "required": ["period_days", "total_cost_usd", "total_requests", "savings", "unknown"],
    "properties": {
        "period_days": {"type": "integer"},
        "total_cost_usd": _USD,
        "total_requests": {"type": "integer"},
        "avg_cost_per_request": {**_USD, "description": "over requests whose cost is known"},
        "projected_monthly_cost": {**_USD, "description": "thirty days like those since the first event"},
        **{
            name: {
                "type": "array",
                "items": {"type": "object"},
                "description": "dearest first; they add up to the total",
            }
            for name in ("by_model", "by_tier")
        },
        "daily": {"type": "array", "items": {"type": "object"}, "description": "days with events; they add up as well"},
        "top_features": {"type": "array", "items": {"type": "object"}, "description": "the ten dearest"},
        "top_teams": {"type": "array", "items": {"type": "object"}, "description": "the ten dearest"},
        "savings": {"type": "object", "description": "by kind, what was spent on saving, and what is left: net_usd"},
        "unknown": {"type": "object", "description": "events whose cost or tokens are unknown, and in no sum"},
    },
}
_BATCH_ANSWER: Final[Json] = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": {"anyOf": [ref("Decision"), ref("Error")]}},
    },
}
