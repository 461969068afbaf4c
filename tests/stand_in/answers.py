"""What the stand-in answers: made-up words, calls of tools, or JSON that fits a schema, by rule from the request."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

FINGERPRINT: Final = "stand-in, no model"
_SAYING: Final = (
    "an answer that nobody thought of and that means nothing but has the form of one so that what reads it can be "
    "tried without a model or a bill while it arrives word by word or all at once as was asked"
)
_FEWEST_WORDS: Final = 16
_MORE_WORDS: Final = 100
_CHARACTERS_A_TOKEN: Final = 4
_ARGUMENTS_PIECE: Final = 8  # characters of a tool's arguments in one event

Finish = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool with its arguments as JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Choice:
    """One of the answers. Each of `tokens` counts as one; of a call of a tool, its name and each piece of arguments."""

    tokens: tuple[str, ...]
    calls: tuple[ToolCall, ...]
    finish: Finish

    @property
    def text(self) -> str | None:
        return "".join(self.tokens) or None

    @property
    def counted(self) -> int:
        return len(self.tokens) + sum(1 + len(pieces(call.arguments)) for call in self.calls)


@dataclass(frozen=True)
class Answer:
    """All that is said to a request, before it takes the form of an API. prompt_tokens: a fourth of its characters."""

    id: str
    model: str
    choices: tuple[Choice, ...]
    prompt_tokens: int
    created: int

    @property
    def completion_tokens(self) -> int:
        return sum(choice.counted for choice in self.choices)


def answer(asked: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], number: int = 0) -> Answer:
    """The answer to a request of either API; `messages` are its messages, whatever they were called.

    number: of the request, for an id that no other answer has; nothing else follows from it.
    """
    digest = hashlib.sha256(json.dumps([messages, asked.get("seed")], sort_keys=True).encode()).hexdigest()
    choices = [_choice(asked, messages, f"{digest}{i}") for i in range(asked.get("n") or 1)]
    return Answer(
        id=f"{digest[:16]}{number:08x}",
        model=asked["model"],
        choices=tuple(choices),
        prompt_tokens=max(1, len(json.dumps(messages)) // _CHARACTERS_A_TOKEN),
        created=int(time.time()),
    )


def pieces(text: str) -> list[str]:
    """A text in the pieces in which a stream brings it."""
    return [text[i : i + _ARGUMENTS_PIECE] for i in range(0, len(text), _ARGUMENTS_PIECE)]


def _choice(asked: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], digest: str) -> Choice:
    most = asked.get("max_completion_tokens") or asked.get("max_tokens") or asked.get("max_output_tokens")
    if (calls := tuple(_calls(asked, messages, digest))) != ():
        return Choice((), calls, "tool_calls")
    schema = _schema(asked)
    said = [json.dumps(instance(schema, schema))] if schema is not None else _words(digest)
    tokens = tuple(said if schema is None else pieces(said[0]))
    cut = most is not None and most < len(tokens)
    return Choice(tokens[:most] if cut else tokens, (), "length" if cut else "stop")


def _words(digest: str) -> list[str]:
    first, words = int(digest[:8], 16), _SAYING.split()
    chosen = [words[(first + 7 * i) % len(words)] for i in range(_FEWEST_WORDS + first % _MORE_WORDS)]
    return [chosen[0].capitalize(), *(f" {word}" for word in chosen[1:]), "."]


def _calls(asked: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], digest: str) -> Iterator[ToolCall]:
    """Those tools whose name is in the last message, those that must be called, none after a tool has answered."""
    wanted, last = asked.get("tool_choice"), messages[-1] if messages else {}
    if wanted == "none" or last.get("role") == "tool" or last.get("type") == "function_call_output":
        return
    functions = [tool.get("function", tool) for tool in asked.get("tools") or ()]
    must = wanted.get("function", wanted).get("name") if isinstance(wanted, Mapping) else None
    text = json.dumps(last.get("content"))
    called = [one for one in functions if one["name"] == must or (must is None and one["name"] in text)]
    if wanted == "required" and not called:
        called = functions[:1]
    for i, one in enumerate(called[:1] if asked.get("parallel_tool_calls") is False else called):
        schema = one.get("parameters") or {"type": "object"}
        yield ToolCall(f"call_{digest[:16]}{i}", one["name"], json.dumps(instance(schema, schema)))


def _schema(asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
    form = asked.get("response_format") or (asked.get("text") or {}).get("format") or {}
    if form.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    if form.get("type") == "json_schema":
        found: Mapping[str, Any] = form.get("json_schema", form)["schema"]
        return found
    return None


def instance(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """The smallest thing that fits a schema, of those that structured outputs allow."""
    if "$ref" in schema:
        found: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return instance(found, root)
    for name in ("const", "enum", "anyOf"):
        if name in schema:
            first = schema[name] if name == "const" else schema[name][0]
            return instance(first, root) if name == "anyOf" else first
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return {name: instance(part, root) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [instance(schema.get("items", {"type": "string"}), root)]
        case "string":
            return "made up"
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return 7
