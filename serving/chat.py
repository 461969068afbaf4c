"""What a conversation is: messages as a client sent them, checked, and the text that routing reads of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from pydantic_core import to_json

from serving.errors import InputError

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
_ROLES = frozenset(get_args(Role))
_INSTRUCTIONS = frozenset({"system", "developer"})
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})
_MOST_TOKENS = 10**9  # far above any context window


@dataclass(frozen=True, slots=True)
class Turn:
    """A message. bytes: of all of it that a model has to read, but for images."""

    role: str
    text: str
    images: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """The parts of a request that routing reads; the request itself passes through untouched.

    `last_user_text` is what the encoder and the cache see: the text of the last user turn, or of the last
    message with text when no user spoke. Lengths are in characters over all messages. `total_bytes` is what a model
    has to read, in UTF-8: the text, and as JSON the tools, the calls to them and a schema for the answer.
    `max_output_tokens` is what the request allows the answer, None when it does not say.
    """

    last_user_text: str
    total_chars: int
    system_chars: int
    messages: int
    user_turns: int
    tools: int = 0
    images: int = 0
    wants_json: bool = False
    total_bytes: int = 0
    max_output_tokens: int | None = None
    turns: tuple[Turn, ...] = field(default=(), compare=False, repr=False)
    tools_json: bytes = field(default=b"", compare=False, repr=False)


def read_conversation(
    *,
    messages: object = None,
    prompt: object = None,
    tools: object = None,
    response_format: object = None,
    max_tokens: object = None,
    max_completion_tokens: object = None,
) -> Conversation:
    """The conversation in `messages`, or in `prompt` as a single user turn.

    messages: a list in OpenAI's chat form; content is text, a list of parts, or null beside tool calls.
    Raises InputError naming the field when neither or both are given, a type or role is wrong, nothing is
    there to read, a text holds a NUL or a lone surrogate, or a limit of tokens is no such number.
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
    tools_json = _as_json(tools, "tools")
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
        total_bytes=sum(turn.bytes for turn in turns)
        + len(tools_json)
        + len(_as_json(response_format, "response_format")),
        max_output_tokens=max(
            _token_limit(max_tokens, "max_tokens"), _token_limit(max_completion_tokens, "max_completion_tokens")
        )
        or None,
        turns=tuple(turns),
        tools_json=tools_json,
    )


def _turn(message: object, where: str) -> Turn:
    if not isinstance(message, Mapping):
        raise InputError(f"must be an object with `role` and `content`, not {_shown(message)}", where=where)
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        shown = repr(role) if isinstance(role, str) and re.fullmatch("[a-z_]{1,20}", role) else _shown(role)
        raise InputError(f"must be one of {', '.join(get_args(Role))}, not {shown}", where=f"{where}.role")
    content = message.get("content")
    field = where if where == "prompt" else f"{where}.content"
    if isinstance(content, str):
        text, images = _checked_text(content, field), 0
    elif isinstance(content, list):
        text, images = _read_parts(content, field)
    elif content is None and role == "assistant":  # a turn that only calls tools
        text, images = "", 0
    else:
        raise InputError(f"must be text or a list of content parts, not {_shown(content)}", where=field)
    rest = {key: value for key, value in message.items() if key not in ("role", "content")}  # calls of tools, a name
    return Turn(role, text, images, _utf8_bytes(text) + len(_as_json(rest, where)))


def _read_parts(parts: Sequence[object], where: str) -> tuple[str, int]:
    """The text of content parts, and how many of them are images."""
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
    return "\n".join(texts), images


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


def _token_limit(value: object, where: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_TOKENS:
        raise InputError(f"must be a whole number from 1 to {_MOST_TOKENS:,}, not {_shown(value)[:40]}", where=where)
    return value


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _as_json(value: object, where: str) -> bytes:
    """A value as compact JSON, nothing where nothing is given."""
    if not value:
        return b""
    try:
        return to_json(value)
    except ValueError:
        raise InputError("holds a lone surrogate or is nested too deeply to be sent", where=where) from None


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
