"""What is wrong with an answer: of chat completions, and the same of responses."""

from typing import Any

import pytest

from serving.escalate_entry import FLAWS, Flaw
from serving.upstream.flaws import flaw_in

CALL = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
SCHEMA = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}
JSON = {"response_format": {"type": "json_object"}}
TO_SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "bill", "schema": SCHEMA}}}


def choice(content: Any = "Yes.", finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}


def chat(*choices: dict[str, Any], tokens: int | None = None) -> dict[str, Any]:
    return {"choices": list(choices), "usage": None if tokens is None else {"completion_tokens": tokens}}


CHAT: tuple[tuple[dict[str, Any], dict[str, Any], Flaw | None], ...] = (
    (chat(choice()), {}, None),
    (chat(choice("")), {}, "empty"),
    (chat(choice(" \n")), {}, "empty"),
    (chat(choice(None)), {}, "empty"),
    (chat(), {}, "empty"),
    (chat(choice(None, "tool_calls", tool_calls=[CALL])), TO_SCHEMA, None),
    (chat(choice(None, "function_call", function_call={"name": "f", "arguments": ""})), {}, None),
    (chat(choice(None, audio={"id": "a"})), {}, None),
    (chat(choice([{"type": "text", "text": "Yes."}])), {}, None),
    (chat(choice([{"type": "text", "text": ""}])), {}, "empty"),
    (chat(choice(None, refusal="I must decline.")), {}, "refused"),
    (chat(choice("Yes", "content_filter")), {}, "refused"),
    (chat(choice("Yes, bec", "length")), {}, "cut"),
    (chat(choice(None, "length", tool_calls=[CALL])), {}, "cut"),
    (chat(choice("", "length"), tokens=4096), {}, "empty"),  # all of it went into thinking
    (chat(choice("Yes, bec", "length"), tokens=50), {"max_tokens": 50}, None),  # as long as was asked for
    (chat(choice("Yes, bec", "length"), tokens=50), {"max_completion_tokens": 9000}, "cut"),  # by the model's own limit
    (chat(choice("Yes, bec", "length")), {"max_tokens": 50}, None),
    (chat(choice("", "length"), tokens=50), {"max_tokens": 50}, "empty"),
    (chat(choice('{"tot', "length"), tokens=50), {"max_tokens": 50, **TO_SCHEMA}, None),
    (chat(choice('{"a": [1]}')), JSON, None),
    (chat(choice("It is 7.")), JSON, "schema"),
    (chat(choice("It is 7.")), {}, None),
    (chat(choice('{"a": NaN}')), JSON, "schema"),
    (chat(choice('{"total": 7}')), TO_SCHEMA, None),
    (chat(choice('{"total": "7"}')), TO_SCHEMA, "schema"),
    (chat(choice('```json\n{"total": 7}\n```')), TO_SCHEMA, "schema"),
    (chat(choice(""), choice()), {}, None),  # one of several will do
    (chat(choice(""), choice("Y", "length")), {}, "empty"),
    ({"error": {"message": "overloaded"}, "choices": []}, {}, None),
    ({"choices": "none"}, {}, None),
    ({"choices": [7, {"message": None}]}, {}, None),
    ({"object": "list", "data": []}, {}, None),
)  # fmt: skip


@pytest.mark.parametrize(("answer", "asked", "flaw"), CHAT)
def test_the_flaw_of_a_chat_completion(answer: dict[str, Any], asked: dict[str, Any], flaw: Flaw | None) -> None:
    assert flaw_in(answer, asked, FLAWS) == flaw


def response(*items: dict[str, Any], why: str | None = None, status: str | None = None) -> dict[str, Any]:
    details = None if why is None else {"reason": why}
    status = status or ("completed" if why is None else "incomplete")
    return {"object": "response", "status": status, "incomplete_details": details, "output": list(items)}


def message(*texts: str) -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "output_text", "text": text} for text in texts]}


THOUGHT = {"type": "reasoning", "summary": []}
FORMAT = {"text": {"format": {"type": "json_schema", "name": "bill", "schema": SCHEMA}}}
RESPONSES: tuple[tuple[dict[str, Any], dict[str, Any], Flaw | None], ...] = (
    (response(THOUGHT, message("Yes.")), {}, None),
    (response(), {}, "empty"),
    (response(THOUGHT), {}, "empty"),
    (response(message("")), {}, "empty"),
    (response(THOUGHT, {"type": "function_call", "name": "f", "arguments": "{}"}), {}, None),
    (response({"type": "image_generation_call", "result": "…"}), {}, None),
    (response({"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}), {}, "refused"),
    (response(message("Yes"), why="content_filter"), {}, "refused"),
    (response(message("Yes, bec"), why="max_output_tokens"), {}, "cut"),
    (response(THOUGHT, why="max_output_tokens"), {"max_output_tokens": 50}, "empty"),
    (response(message("Yes, bec"), why="max_output_tokens"), {"max_output_tokens": 50}, None),
    (response(message('{"total"', ": 7}")), FORMAT, None),
    (response(message('{"sum": 7}')), FORMAT, "schema"),
    (response(message("7"), status="completed"), {"text": {"format": {"type": "text"}}}, None),
    (response(status="queued"), {"background": True}, None),
    (response(status="failed"), {}, None),
    ({"object": "response", "status": "completed", "output": None}, {}, None),
)  # fmt: skip


@pytest.mark.parametrize(("answer", "asked", "flaw"), RESPONSES)
def test_the_flaw_of_a_response(answer: dict[str, Any], asked: dict[str, Any], flaw: Flaw | None) -> None:
    assert flaw_in(answer, asked, FLAWS) == flaw


def test_only_flaws_that_are_looked_for_are_found() -> None:
    cut_json = chat(choice('{"tot', "length"))
    assert flaw_in(cut_json, TO_SCHEMA, FLAWS) == "cut"
    assert flaw_in(cut_json, TO_SCHEMA, ("schema",)) == "schema"
    assert flaw_in(cut_json, TO_SCHEMA, ("empty", "refused")) is None
    assert flaw_in(cut_json, TO_SCHEMA, ()) is None
