"""What is wrong with an answer, as far as its form tells? Of chat completions and of responses, that came whole.

Nothing is read into its words: an answer that declines in ordinary prose is no refusal here.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from serving.escalate_entry import Flaw
from serving.upstream.json_form import Form, fits, form_asked

_LONGEST_JSON: Final = 1_000_000
"""Characters of an answer that is read as JSON; a longer one is taken as it is."""
OUTPUT_LIMITS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""Fields of a request that say how long its answer may be."""
_CALLS: Final = ("tool_calls", "function_call")
_OTHER: Final = ("audio", "images")
"""Of a message: what may be an answer beside text and calls of tools."""


class _Said(NamedTuple):
    """One answer. other: whether it holds what is no text, such as a call of a tool. cut: whether tokens ran out."""

    text: str
    other: bool
    refused: bool
    cut: bool


def flaw_in(answer: Mapping[str, Any], asked: Mapping[str, Any], among: Collection[Flaw]) -> Flaw | None:
    """The first of `among` that the answer has; None also where it cannot be told. asked: the request it is to.

    Of several choices, all must have one. An answer that reached the client's own limit of tokens is as long as was
    asked for, and its JSON is not looked at. What the provider says that it failed at is no flaw of the answer.
    May take some tenths of a second where JSON was asked for (`json_form`).
    """
    if not among or answer.get("error"):
        return None
    said = list(_choices(answer) if "choices" in answer else _response(answer))
    limited = _reached_the_clients_limit(answer, asked)
    form = form_asked(asked) if "schema" in among else None
    found = [next((flaw for flaw in _flaws(one, limited, form) if flaw in among), None) for one in said]
    return found[0] if found and None not in found else None


def _flaws(said: _Said, limited: bool, form: Form | None) -> Iterator[Flaw]:
    if said.refused:
        yield "refused"
        return
    if not said.other and not said.text.strip():
        yield "empty"
        return
    if said.cut:
        if limited:
            return
        yield "cut"
    if form is not None and not said.other and len(said.text) <= _LONGEST_JSON and not _has_form(said.text, form):
        yield "schema"


def _has_form(text: str, form: Form) -> bool:
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        return False
    return form.schema is None or fits(value, len(text), form.schema)


def _choices(answer: Mapping[str, Any]) -> Iterator[_Said]:
    """Of a chat completion."""
    choices = answer["choices"]
    if choices == []:
        yield _Said("", False, False, False)
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, Mapping) or not isinstance(message := choice.get("message"), Mapping):
            continue
        content, finish = message.get("content"), choice.get("finish_reason")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        text, strange = _text_of(parts, "text")
        yield _Said(
            text,
            strange or any(message.get(name) for name in (*_CALLS, *_OTHER)),
            bool(message.get("refusal")) or finish == "content_filter",
            finish == "length",
        )


def _response(answer: Mapping[str, Any]) -> Iterator[_Said]:
    """Of the Responses API. One in the background, or that failed, has nothing to be judged by."""
    items, status = answer.get("output"), answer.get("status")
    if not isinstance(items, list) or status not in ("completed", "incomplete"):
        return
    details = answer.get("incomplete_details")
    why = details.get("reason") if status == "incomplete" and isinstance(details, Mapping) else None
    items = [item for item in items if isinstance(item, Mapping)]
    contents = [item.get("content") for item in items if item.get("type") == "message"]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    text, strange = _text_of([part for part in parts if _kind(part) != "refusal"], "output_text")
    yield _Said(
        text,
        strange or any(item.get("type") not in ("message", "reasoning") for item in items),
        why == "content_filter" or any(_kind(part) == "refusal" for part in parts),
        why == "max_output_tokens",
    )


def _text_of(parts: Sequence[Any], kind: str) -> tuple[str, bool]:
    """The text of parts of that kind, and whether there are others."""
    texts = [part["text"] for part in parts if _kind(part) == kind and isinstance(part.get("text"), str)]
    return "".join(texts), any(_kind(part) != kind for part in parts)


def _kind(part: object) -> object:
    return part.get("type") if isinstance(part, Mapping) else None


def _reached_the_clients_limit(answer: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether the answer is as long as the client allowed; where no usage tells, whenever it gave a limit."""
    limit = next((asked[name] for name in OUTPUT_LIMITS if asked.get(name) is not None), None)
    if not isinstance(limit, int):
        return False
    choices = answer.get("choices")
    if isinstance(choices, list) and len(choices) > 1:
        return True  # usage is that of all together
    usage = answer.get("usage")
    counts = [usage.get(name) for name in ("completion_tokens", "output_tokens")] if isinstance(usage, Mapping) else []
    count = next((count for count in counts if isinstance(count, int)), limit)
    return count >= limit
