"""What a conversation is: messages as a client sent them, checked, and the text that routing reads of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from serving.errors import InputError

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
_ROLES = frozenset(get_args(Role))
_INSTRUCTIONS = frozenset({"system", "developer"})
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})


@dataclass(frozen=True, slots=True)
class Conversation:
    """The parts of a request that routing reads; the request itself passes through untouched.

    `last_user_text` is what the encoder and the cache see: the text of the last user turn, or of the last
    message with text when no user spoke. Lengths are in characters over all messages.
    """

    last_user_text: str
    total_chars: int
    system_chars: int
    messages: int
    user_turns: int
    tools: int = 0
    images: int = 0
    wants_json: bool = False


def read_conversation(
    *,
    messages: object = None,
    prompt: object = None,
    tools: object = None,
    response_format: object = None,
) -> Conversation:
    """The conversation in `messages`, or in `prompt` as a single user turn.

    messages: a list in OpenAI's chat form; content is text, a list of parts, or null beside tool calls.
    Raises InputError naming the field when neither or both are given, a type or role is wrong, nothing is
    there to read, or a text holds a NUL or a lone surrogate.
    """
    if (messages is None) == (prompt is None):
        raise InputError("give exactly one of `messages` and `prompt`", where="request")
    if messages is None:
        messages, source = [{"role": "user", "content": prompt}], "prompt"
    else:
        source = ""
    if not isinstance(messages, list) or not messages:
        raise InputError(f"must be a list with at least one message, not {_shown(messages)}", where="messages")

    turns = [_turn(message, source or f"messages[{i}]") for i, message in enumerate(messages)]
    with_text = [turn for turn in turns if turn.text.strip()]
    images = sum(turn.images for turn in turns)
    if not with_text and not images:
        raise InputError("is empty: there is no text to route", where=source or "messages")
    user_turns = [turn for turn in turns if turn.role == "user"]
    last = user_turns[-1] if user_turns else with_text[-1] if with_text else turns[-1]
    return Conversation(
        last_user_text=last.text,
        total_chars=sum(len(turn.text) for turn in turns),
        system_chars=sum(len(turn.text) for turn in turns if turn.role in _INSTRUCTIONS),
        messages=len(turns),
        user_turns=len(user_turns),
        tools=_tool_count(tools),
        images=images,
        wants_json=_wants_json(response_format),
    )


@dataclass(frozen=True, slots=True)
class _Turn:
    role: str
    text: str
    images: int


def _turn(message: object, where: str) -> _Turn:
    if not isinstance(message, Mapping):
        raise InputError(f"must be an object with `role` and `content`, not {_shown(message)}", where=where)
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        shown = repr(role) if isinstance(role, str) and re.fullmatch("[a-z_]{1,20}", role) else _shown(role)
        raise InputError(f"must be one of {', '.join(get_args(Role))}, not {shown}", where=f"{where}.role")
    content = message.get("content")
    field = where if where == "prompt" else f"{where}.content"
    if isinstance(content, str):
        return _Turn(role, _checked_text(content, field), 0)
    if isinstance(content, list):
        return _turn_of_parts(role, content, field)
    if content is None and role == "assistant":  # a turn that only calls tools
        return _Turn(role, "", 0)
    raise InputError(f"must be text or a list of content parts, not {_shown(content)}", where=field)


def _turn_of_parts(role: str, parts: Sequence[object], where: str) -> _Turn:
    texts: list[str] = []
    images = 0
    for i, part in enumerate(parts):
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise InputError(f"must be an object with a `type`, not {_shown(part)}", where=f"{where}[{i}]")
        kind = part["type"]
        if kind in TEXT_PARTS:
            text = part.get("text")
            if not isinstance(text, str):
                raise InputError(f"must be text, not {_shown(text)}", where=f"{where}[{i}].text")
            texts.append(_checked_text(text, f"{where}[{i}].text"))
        elif kind in _IMAGE_PARTS:
            images += 1
    return _Turn(role, "\n".join(texts), images)


def _checked_text(text: str, where: str) -> str:
    if (nul := text.find("\0")) >= 0:
        raise InputError(f"holds a NUL character at position {nul}; remove it", where=where)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"holds a lone surrogate at position {error.start}; send well-formed Unicode", where=where
        ) from None
    return text


def _tool_count(tools: object) -> int:
    if tools is None:
        return 0
    if not isinstance(tools, list):
        raise InputError(f"must be a list, not {_shown(tools)}", where="tools")
    return len(tools)


def _wants_json(response_format: object) -> bool:
    if response_format is None:
        return False
    if not isinstance(response_format, Mapping):
        raise InputError(f"must be an object, not {_shown(response_format)}", where="response_format")
    return response_format.get("type") in ("json_object", "json_schema")


def _shown(value: object) -> str:
    """The type of a refused value, and the size of a text: what it says is nobody's business."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "an object" if isinstance(value, dict) else type(value).__name__
