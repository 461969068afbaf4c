"""Answers of the stand-in that are answers, and no good: of either API, whole ones only."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal, assert_never

Poor = Literal["empty", "refused", "cut", "filtered", "no_json", "off_schema"]
"""off_schema: JSON that fits no schema with a name in it that is needed; no_json: words instead; filtered: what the
provider's filter took away."""


def spoiled(whole: Mapping[str, Any], how: Poor) -> dict[str, Any]:
    """The same answer, gone wrong."""
    found = deepcopy(dict(whole))
    match how:
        case "empty":
            _say(found, "")
        case "refused":
            _refuse(found, "I must decline.")
        case "cut":
            _say(found, "An answer that en")
            _end(found, "length", "max_output_tokens")
        case "filtered":
            _say(found, "")
            _end(found, "content_filter", "content_filter")
        case "no_json":
            _say(found, "Here it is: 7")
        case "off_schema":
            _say(found, "{}")
        case _:
            assert_never(how)
    return found


def _say(found: dict[str, Any], text: str) -> None:
    for choice in found.get("choices", ()):
        choice["message"] |= {"content": text}
    for item in found.get("output", ()):
        item["content"][0]["text"] = text


def _refuse(found: dict[str, Any], text: str) -> None:
    for choice in found.get("choices", ()):
        choice["message"] |= {"content": None, "refusal": text}
    for item in found.get("output", ()):
        item["content"] = [{"type": "refusal", "refusal": text}]


def _end(found: dict[str, Any], finish: str, reason: str) -> None:
    for choice in found.get("choices", ()):
        choice["finish_reason"] = finish
    if "output" in found:
        found |= {"status": "incomplete", "incomplete_details": {"reason": reason}}
