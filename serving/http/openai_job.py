"""What a client of OpenAI's API asks for: which model, for whom, and what goes on to the provider."""

from collections.abc import Mapping
from typing import Any, Final

from serving.api_key import ApiKey, who_calls
from serving.attribution import read_attribution, read_name
from serving.deciding import AUTO, Decider
from serving.errors import InputError
from serving.job import Job, Path

_SESSION: Final = "x-session-id"  # as other gateways have it
_OURS: Final = ("team", "feature", "task", "session_id")


def read_job(
    path: Path,
    payload: dict[str, Any],
    headers: Mapping[str, str],
    key: ApiKey | None,
    decider: Decider,
    aliases: Mapping[str, str],
) -> Job:
    """The call. Raises InputError naming the field, AccessError where the key does not allow the model.

    Our own keys of `metadata` and our headers are for us: a header wins. The rest goes on as it came.
    """
    model = payload.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= 256 or "\x00" in model:
        raise InputError(f"must name a model, or be {AUTO!r}", where="model")
    if not isinstance(payload.get("stream"), bool | None):
        raise InputError("must be true or false", where="stream")
    metadata = {} if payload.get("metadata") is None else payload["metadata"]
    if not isinstance(metadata, Mapping):
        raise InputError(f"must be an object, not {type(metadata).__name__}", where="metadata")
    told = {name: headers.get(f"x-tierwise-{name.replace('_', '-')}") or metadata.get(name) for name in _OURS}
    told["session_id"] = told["session_id"] or headers.get(_SESSION)
    request_id = read_name(headers.get("x-tierwise-request-id"), "request_id")
    sent, shows_usage = _sent(path, payload, metadata)
    by = who_calls(key)
    if key is not None:
        key.check_model(AUTO if model.startswith(f"{AUTO}:") else model)
    model = aliases.get(model, model)
    name, _, policy = model.partition(":")
    if name != AUTO:
        who = read_attribution(told, payload.get("user"), by)
        return Job(path, sent, model, None, who, request_id, shows_usage)
    if path == "/embeddings":
        raise InputError("must name a model: embeddings are not routed", where="model")
    about = {**payload, "metadata": told, "request_id": request_id, "policy": policy or None, "explain": None}
    if path == "/responses":
        about |= _as_chat(payload)
    asked = decider.read(about, by)
    return Job(path, sent, None, asked, asked.who, request_id, shows_usage)


def _sent(path: Path, payload: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """What goes on, and whether the client sees a stream's usage, which is asked for in any case."""
    rest = {name: value for name, value in metadata.items() if name not in _OURS}
    sent = {name: value for name, value in payload.items() if name != "metadata"} | ({"metadata": rest} if rest else {})
    if path != "/chat/completions" or payload.get("stream") is not True:
        return sent, True
    options = payload.get("stream_options")
    options = options if isinstance(options, Mapping) else {}
    sent["stream_options"] = {**options, "include_usage": True}
    return sent, options.get("include_usage") is True


def _as_chat(payload: Mapping[str, Any]) -> dict[str, object]:
    """The fields of the Responses API that routing reads, under their names of chat completions.

    Items of the input that are no messages, such as calls of tools, have no text.
    """
    given, before, text = payload.get("input"), payload.get("instructions"), payload.get("text")
    if isinstance(given, list):
        turns = [one for one in given if isinstance(one, Mapping) and "role" in one]
    else:
        turns = [{"role": "user", "content": given}]
    if isinstance(before, str) and before:
        turns = [{"role": "system", "content": before}, *turns]
    return {
        "messages": turns,
        "max_tokens": payload.get("max_output_tokens"),
        "response_format": text.get("format") if isinstance(text, Mapping) else None,
    }
