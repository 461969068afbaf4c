"""What a routing request may hold, as JSON Schema with examples.

Written out here because `serving.chat` and `serving.routing.policy` read a request without a model, to name the place
of a mistake and never quote a text. The tests send the service what these schemas allow and what they forbid, and
compare: a new field of a request is a property of `RouteRequest`.
"""

from typing import Any, Final, get_args

from serving.chat import TEXT_PARTS, Role

Json = dict[str, Any]


def ref(name: str) -> Json:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Final[Json] = {"type": "string", "pattern": "^[^\\u0000]*$"}
_PROMPT: Final[Json] = {"type": "string", "pattern": "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$"}
_PARTS: Final[Json] = {"type": "array", "items": ref("ContentPart")}
_PART: Final[Json] = {
    "type": "object",
    "description": "Text is read, images are counted, other kinds are passed over.",
    "required": ["type"],
    "properties": {
        "type": {"type": "string", "description": f"{', '.join(sorted(TEXT_PARTS))}, image_url, or any other."},
        "text": {"description": "What a text part says."},
    },
    "anyOf": [
        {"required": ["text"], "properties": {"type": {"enum": sorted(TEXT_PARTS)}, "text": _TEXT}},
        {"properties": {"type": {"not": {"enum": sorted(TEXT_PARTS)}}}},
    ],
}
_MESSAGE: Final[Json] = {
    "type": "object",
    "description": "As in OpenAI's chat API; fields that are not listed, such as tool_calls, are passed over.",
    "required": ["role"],
    "properties": {
        "role": {"enum": list(get_args(Role)), "description": "The last turn of a user is what is judged."},
        "content": {
            "anyOf": [_TEXT, _PARTS, {"type": "null"}],
            "description": "Null, or left out, in a turn of the assistant that only calls tools.",
        },
    },
    "anyOf": [
        {"required": ["content"], "properties": {"content": {"type": ["string", "array"]}}},
        {"properties": {"role": {"const": "assistant"}, "content": {"type": "null"}}},
    ],
}


def _policy(name: str, parameter: str, meaning: str, **bounds: float) -> Json:
    number = {"type": ["number", "string", "null"], **bounds, "description": meaning}
    return {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"const": name}, parameter: number},
        "additionalProperties": False,
    }


_POLICY: Final[Json] = {
    "description": "`quality:0.95`, `share:0.3`, `value:0.01`, or the same as an object. The service's own if null.",
    "anyOf": [
        {"type": "string", "pattern": "^(quality|share|value)(:.*)?$"},
        _policy(
            "quality", "target", "Share of the top tier's quality to retain: a calibrated one.", minimum=0, maximum=1
        ),
        _policy("share", "max_share", "Largest share of calls that may go to the top tier.", minimum=0, maximum=1),
        _policy("value", "usd", "What an acceptable answer is worth, in USD.", minimum=1e-12),
        {"type": "null"},
    ],
}
_NAME: Final[Json] = {"type": ["string", "null"], "maxLength": 256, "pattern": "^[^\\u0000]*$"}
_METADATA: Final[Json] = {
    "type": ["object", "null"],
    "description": "Who asks: pins and sessions follow it. Other keys are your own.",
    "properties": dict.fromkeys(("team", "feature", "task", "session_id"), _NAME),
}
_TOKENS: Final[Json] = {
    "type": ["integer", "null"],
    "minimum": 1,
    "maximum": 10**9,
    "description": "Room the answer needs in a context window.",
}
_ROUTE_REQUEST: Final[Json] = {
    "type": "object",
    "description": "Either `prompt` or `messages`. Fields that are not listed are passed over.",
    "properties": {
        "prompt": {"anyOf": [_PROMPT, _PARTS, {"type": "null"}], "description": "A single turn of the user."},
        "messages": {"type": ["array", "null"], "minItems": 1, "items": ref("Message")},
        "policy": ref("Policy"),
        "tools": {
            "type": ["array", "null"],
            "description": "Go to tiers that take tools; how many there are is a feature.",
        },
        "response_format": {"type": ["object", "null"], "description": "Whether JSON is wanted: by its `type`."},
        "metadata": _METADATA,
        "user": {**_NAME, "description": "Whose request it is; kept in the request log."},
        "request_id": {**_NAME, "description": "An id of your own, to give feedback by."},
        "explain": {"type": ["boolean", "null"], "description": "Adds an `explanation` to the decision."},
        "max_tokens": _TOKENS,
        "max_completion_tokens": _TOKENS,
    },
    "oneOf": [
        {"required": ["prompt"], "properties": {"prompt": {"type": ["string", "array"]}, "messages": {"type": "null"}}},
        {"required": ["messages"], "properties": {"messages": {"type": "array"}, "prompt": {"type": "null"}}},
    ],
}

REQUEST_SCHEMAS: Final[Json] = {
    "RouteRequest": _ROUTE_REQUEST,
    "Message": _MESSAGE,
    "ContentPart": _PART,
    "Policy": _POLICY,
}

_PROOF: Final[Json] = {"prompt": "Prove that the sum of two even numbers is even."}
_WEATHER: Final[Json] = {
    "messages": [
        {"role": "system", "content": "Answer in one sentence."},
        {"role": "user", "content": [{"type": "text", "text": "Do I need an umbrella in Porto today?"}]},
    ],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
}
_TRANSLATION: Final[Json] = {
    "prompt": "Translate into French: good morning",
    "policy": {"name": "share", "max_share": 0.3},
}
ROUTE_EXAMPLES: Final[Json] = {
    "prompt": {"summary": "A prompt", "value": _PROOF},
    "conversation": {"summary": "A conversation with a tool", "value": _WEATHER},
    "policy": {"summary": "Three in ten calls to the top tier, at most", "value": _TRANSLATION},
}
BATCH_EXAMPLES: Final[Json] = {"two": {"summary": "Two at once", "value": {"requests": [_PROOF, _TRANSLATION]}}}
