"""What `/v1/systemone` takes and answers, for the OpenAPI document."""

from typing import Final

from serving.http.request_schema import Json

SYSTEM_ONE_SCHEMAS: Final[Json] = {
    "SystemOneRequest": {
        "type": "object",
        "required": ["state", "questions"],
        "properties": {
            "model": {
                "type": ["string", "null"],
                "description": "`auto:` and a policy; any other name is the asker's own",
            },
            "state": {"type": ["string", "object", "array"], "description": "the text to judge"},
            "questions": {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 128,
                "additionalProperties": {
                    "type": "object",
                    "required": ["type", "criteria"],
                    "properties": {
                        "type": {"const": "choice"},
                        "criteria": {"type": "object", "minProperties": 1, "description": "labels of the tiers"},
                    },
                },
            },
        },
    },
    "SystemOneAnswer": {
        "type": "object",
        "required": ["model", "decision_id", "answers", "usage"],
        "properties": {
            "model": {"type": "string", "description": "the router"},
            "decision_id": {"type": "string"},
            "answers": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "required": ["type", "choice", "confidence", "probabilities"],
                    "properties": {
                        "type": {"const": "choice"},
                        "choice": {"type": "string"},
                        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
                        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
                    },
                },
            },
            "usage": {"type": "object"},
        },
    },
}
SYSTEM_ONE_EXAMPLES: Final[Json] = {
    "asked": {
        "summary": "As LiteLLM asks",
        "value": {
            "model": "auto",
            "state": "Is the invoice of March paid?",
            "questions": {
                "tier": {
                    "type": "choice",
                    "instructions": "Which tier is enough?",
                    "criteria": {"economy": "short", "standard": "usual", "premium": "hard"},
                }
            },
        },
    }
}
