"""Usage as providers report it, in one form.

OpenAI and Google count cached tokens among those of the prompt, Anthropic beside them; Google counts thoughts beside
the answer. Told apart by the names of the fields, since gateways answer in one provider's form for another's models.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from serving.errors import InputError
from serving.ledger.usage import Usage


def read_usage(reported: object, *, where: str = "usage") -> Usage | None:
    """The usage of a reply as OpenAI (chat, responses, embeddings), Anthropic or Google reports it, or in our own form.

    None when it is None or says nothing. Raises InputError when it is of no known form or contradicts itself.
    """
    if reported is None:
        return None
    if not isinstance(reported, Mapping):
        raise InputError(f"must be an object, not {type(reported).__name__}", where=where)
    if "promptTokenCount" in reported or "totalTokenCount" in reported:
        values = _google(reported)
    elif "prompt_tokens" in reported:
        values = _openai(reported, "prompt_tokens", "completion_tokens")
    elif "input_tokens_details" in reported or "output_tokens_details" in reported:
        values = _openai(reported, "input_tokens", "output_tokens")
    elif "cache_read_input_tokens" in reported or "cache_creation_input_tokens" in reported:
        values = _anthropic(reported)
    else:
        values = {name: reported[name] for name in Usage.model_fields if name in reported}
        if reported and not values:
            raise InputError(f"counts no tokens under a name that is known, such as {_KNOWN}", where=where)
    try:
        usage = Usage.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InputError(f"{name + ': ' if name else ''}{first['msg']}", where=where) from None
    return usage if usage.model_dump(exclude_none=True) else None


_KNOWN: Final = "prompt_tokens, input_tokens or promptTokenCount"


def _openai(reported: Mapping[str, Any], into: str, out: str) -> dict[str, Any]:
    read, made = _details(reported, f"{into}_details"), _details(reported, f"{out}_details")
    cached = read.get("cached_tokens")
    answer, reasoning = reported.get(out), made.get("reasoning_tokens")
    beside = _sum(reported.get(into), answer, reasoning) == reported.get("total_tokens")
    return {
        "input_tokens": reported.get(into),
        "cached_input_tokens": reported.get("prompt_cache_hit_tokens") if cached is None else cached,  # DeepSeek's
        "cache_write_tokens": read.get("cache_write_tokens"),  # OpenRouter's
        "input_audio_tokens": read.get("audio_tokens"),
        "output_tokens": _sum(answer, reasoning) if beside and reasoning else answer,  # xAI counts it beside
        "reasoning_tokens": reasoning,
        "output_audio_tokens": made.get("audio_tokens"),
    }


def _anthropic(reported: Mapping[str, Any]) -> dict[str, Any]:
    beside = [reported.get(name) for name in ("cache_read_input_tokens", "cache_creation_input_tokens")]
    fresh = reported.get("input_tokens")
    return {
        "input_tokens": fresh if fresh is None else _sum(fresh, *beside),
        "cached_input_tokens": beside[0],
        "cache_write_tokens": beside[1],
        "cache_write_1h_tokens": _details(reported, "cache_creation").get("ephemeral_1h_input_tokens"),
        "output_tokens": reported.get("output_tokens"),
    }


def _google(reported: Mapping[str, Any]) -> dict[str, Any]:
    answer, thoughts = reported.get("candidatesTokenCount"), reported.get("thoughtsTokenCount")
    prompt, by_tools = reported.get("promptTokenCount"), reported.get("toolUsePromptTokenCount")
    into = None if prompt is None else _sum(prompt, by_tools)
    if answer is None and into is not None and reported.get("totalTokenCount") == _sum(into, thoughts):
        answer = 0  # a count of 0 is left out
    return {
        "input_tokens": into,
        "cached_input_tokens": reported.get("cachedContentTokenCount"),
        "input_audio_tokens": _google_audio(reported.get("promptTokensDetails")),
        "output_tokens": None if answer is None and thoughts is None else _sum(answer, thoughts),
        "reasoning_tokens": thoughts,
        "output_audio_tokens": _google_audio(reported.get("candidatesTokensDetails")),
    }


def _google_audio(details: object) -> Any:
    """The tokens of audio among those of each modality; None without any."""
    if not isinstance(details, list):
        return None
    of_audio = [one.get("tokenCount") for one in details if isinstance(one, Mapping) and one.get("modality") == "AUDIO"]
    return _sum(*of_audio) if of_audio else None


def _details(reported: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = reported.get(name)
    return details if isinstance(details, Mapping) else {}


def _sum(*parts: Any) -> Any:
    """The sum of those that are there; what is no whole number is left for the validation to name."""
    wrong = next((part for part in parts if part is not None and type(part) is not int), None)
    return sum(part or 0 for part in parts) if wrong is None else wrong
