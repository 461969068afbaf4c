"""An answer in the forms of OpenAI's APIs: chat completions, responses, embeddings; whole or as a stream's events."""

import base64
import hashlib
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.stand_in.answers import FINGERPRINT, Answer, Choice, pieces

_DIMENSION: Final = 8
_CACHED_SHARE: Final = 4  # of the prompt, a fourth was read from a cache that there is not


def chat_usage(found: Answer) -> dict[str, Any]:
    """Usage as chat completions tell it."""
    return {
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.completion_tokens,
        "total_tokens": found.prompt_tokens + found.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": found.prompt_tokens // _CACHED_SHARE, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def chat(found: Answer, *, logprobs: bool) -> dict[str, Any]:
    """A chat completion."""
    return _head(found, "chat.completion") | {
        "choices": [
            {"index": i, "message": _message(choice), "logprobs": _logprobs(choice.tokens) if logprobs else None,
             "finish_reason": choice.finish}
            for i, choice in enumerate(found.choices)
        ],
        "usage": chat_usage(found),
    }  # fmt: skip


def chat_chunks(found: Answer, *, logprobs: bool, usage: bool) -> Iterator[dict[str, Any]]:
    """The events of a stream: for each choice a role, a token an event, and how it ended; last the usage, if asked."""
    head = _head(found, "chat.completion.chunk")

    def chunk(
        index: int, delta: Mapping[str, Any], finish: str | None = None, said: str | None = None
    ) -> dict[str, Any]:
        probabilities = _logprobs((said,)) if logprobs and said is not None else None
        choice = {"index": index, "delta": delta, "logprobs": probabilities, "finish_reason": finish}
        return head | {"choices": [choice]} | ({"usage": None} if usage else {})

    for i, choice in enumerate(found.choices):
        yield chunk(i, {"role": "assistant", "content": None if choice.calls else "", "refusal": None})
        for token in choice.tokens:
            yield chunk(i, {"content": token}, said=token)
        for j, call in enumerate(choice.calls):
            function = {"name": call.name, "arguments": ""}
            yield chunk(i, {"tool_calls": [{"index": j, "id": call.id, "type": "function", "function": function}]})
            for piece in pieces(call.arguments):
                yield chunk(i, {"tool_calls": [{"index": j, "function": {"arguments": piece}}]})
        yield chunk(i, {}, choice.finish)
    if usage:
        yield head | {"choices": [], "usage": chat_usage(found)}


def response(found: Answer) -> dict[str, Any]:
    """An answer of the Responses API."""
    return _response(found, "completed", [*_items(found)], usage=True)


def response_events(found: Answer) -> Iterator[dict[str, Any]]:
    """The events of its stream, each numbered."""
    for number, event in enumerate(_response_events(found)):
        yield event | {"sequence_number": number}


def embedding(text: str, form: str) -> list[float] | str:
    """Numbers that follow from the text alone; as base64 where that is asked for."""
    digest = hashlib.sha256(text.encode()).digest()[: 4 * _DIMENSION]
    numbers = [number / 2**31 - 1 for number in struct.unpack(f"<{_DIMENSION}I", digest)]
    return base64.b64encode(struct.pack(f"<{_DIMENSION}f", *numbers)).decode() if form == "base64" else numbers


def _head(found: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{found.id}", "object": kind, "created": found.created, "model": found.model,
        "service_tier": "default", "system_fingerprint": FINGERPRINT,
    }  # fmt: skip


def _message(choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []}
    if choice.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in choice.calls
        ]
    return message


def _logprobs(tokens: tuple[str, ...]) -> dict[str, Any]:
    content = [{"token": one, "logprob": -0.5, "bytes": list(one.encode()), "top_logprobs": []} for one in tokens]
    return {"content": content, "refusal": None}


def _response(found: Answer, status: str, output: list[dict[str, Any]], *, usage: bool) -> dict[str, Any]:
    told = {
        "input_tokens": found.prompt_tokens,
        "input_tokens_details": {"cached_tokens": found.prompt_tokens // _CACHED_SHARE},
        "output_tokens": found.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": found.prompt_tokens + found.completion_tokens,
    }
    return {
        "id": f"resp_{found.id}", "object": "response", "created_at": found.created, "status": status, "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "model": found.model, "output": output,
        "parallel_tool_calls": True, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": [],
        "usage": told if usage else None,
    }  # fmt: skip


def _items(found: Answer) -> Iterator[dict[str, Any]]:
    """A message, or calls of tools."""
    (choice,) = found.choices
    for i, call in enumerate(choice.calls):
        yield {"type": "function_call", "id": f"fc_{found.id}{i}", "call_id": call.id, "name": call.name,
               "arguments": call.arguments, "status": "completed"}  # fmt: skip
    if not choice.calls:
        text = {"type": "output_text", "text": choice.text or "", "annotations": [], "logprobs": []}
        yield {
            "type": "message",
            "id": f"msg_{found.id}",
            "role": "assistant",
            "status": "completed",
            "content": [text],
        }


def _response_events(found: Answer) -> Iterator[dict[str, Any]]:
    begun = _response(found, "in_progress", [], usage=False)
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    (choice,) = found.choices
    for i, item in enumerate(_items(found)):
        at = {"item_id": item["id"], "output_index": i}
        if item["type"] == "message":
            empty = item | {"status": "in_progress", "content": []}
            yield {"type": "response.output_item.added", "output_index": i, "item": empty}
            (part,) = item["content"]
            yield {"type": "response.content_part.added", **at, "content_index": 0, "part": part | {"text": ""}}
            for token in choice.tokens:
                yield {"type": "response.output_text.delta", **at, "content_index": 0, "delta": token, "logprobs": []}
            yield {"type": "response.output_text.done", **at, "content_index": 0, "text": part["text"], "logprobs": []}
            yield {"type": "response.content_part.done", **at, "content_index": 0, "part": part}
        else:
            empty = item | {"status": "in_progress", "arguments": ""}
            yield {"type": "response.output_item.added", "output_index": i, "item": empty}
            for piece in pieces(item["arguments"]):
                yield {"type": "response.function_call_arguments.delta", **at, "delta": piece}
            yield {"type": "response.function_call_arguments.done", **at, "name": item["name"],
                   "arguments": item["arguments"]}  # fmt: skip
        yield {"type": "response.output_item.done", "output_index": i, "item": item}
    yield {"type": "response.completed", "response": response(found)}
