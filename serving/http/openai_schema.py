"""What of OpenAI's API is answered here, for the OpenAPI document. The rest of a request goes on as it came."""

from typing import Final

from serving.http.request_schema import Json, ref

_MODEL: Final[Json] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 256,
    "pattern": "^[^\\u0000]+$",
    "description": "`auto`, or `auto:` and a policy, to have it chosen; or a model by its name.",
}
_METADATA: Final[Json] = {
    "type": ["object", "null"],
    "description": "`team`, `feature`, `task` and `session_id` stay here; other keys go on.",
}
_STREAM: Final[Json] = {"type": ["boolean", "null"]}
SCHEMAS: Final[Json] = {
    "ChatCompletionRequest": {
        "type": "object",
        "required": ["model", "messages"],
        "properties": {
            "model": _MODEL,
            "messages": {"type": "array", "minItems": 1, "items": ref("Message")},
            "metadata": _METADATA,
            "stream": _STREAM,
        },
    },
    "ResponseRequest": {
        "type": "object",
        "required": ["model", "input"],
        "properties": {
            "model": _MODEL,
            "input": {"type": ["string", "array"]},
            "metadata": _METADATA,
            "stream": _STREAM,
        },
    },
    "EmbeddingRequest": {
        "type": "object",
        "required": ["model", "input"],
        "properties": {"model": _MODEL, "input": {"type": ["string", "array"]}},
    },
    "Answer": {
        "type": "object",
        "description": "As the provider answered. The headers x-tierwise-… say on which decision it rests, the tier, "
        "the number of attempts, whether a stronger tier was asked since an answer was no good and, of a whole "
        "answer, what it cost.",
    },
    "Models": {
        "type": "object",
        "required": ["object", "data"],
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": {"type": "object"}}},
    },
}
EXAMPLES: Final[Json] = {
    "ChatCompletionRequest": {
        "model": "auto",
        "messages": [{"role": "user", "content": "Is the invoice of March paid?"}],
        "metadata": {"team": "billing"},
    },
    "ResponseRequest": {"model": "auto:quality:0.98", "input": "Is the invoice of March paid?"},
    "EmbeddingRequest": {"model": "text-embedding-3-small", "input": ["an invoice", "a receipt"]},
}
