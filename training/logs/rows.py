"""How does one row of a file become a logged request?"""

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from difflib import get_close_matches

from pydantic import ValidationError

from serving.errors import InputError
from serving.tiers import PICO_PER_USD
from training.logs.json_text import JsonNumber, parse_json
from training.logs.record import MAX_COST_PICO_USD, LoggedRequest, Outcome

_REQUEST = ("id", "time", "messages", "prompt", "tools", "response_format", "metadata")
_ANSWER = (
    *("model", "tier", "response", "response_chars", "usage", "cost_usd", "latency_s", "propensity"),
    *("acceptable", "score", "feedback"),
)
_NESTED = frozenset({"messages", "tools", "response_format", "metadata", "usage", "feedback", "outcomes"})
_FLAT = {  # a table's columns that are fields of a nested object
    "team": ("metadata", "team"),
    "feature": ("metadata", "feature"),
    "session_id": ("metadata", "session_id"),
    "task": ("metadata", "task"),
    "input_tokens": ("usage", "input_tokens"),
    "output_tokens": ("usage", "output_tokens"),
    "feedback_kind": ("feedback", "kind"),
}
FIELDS = frozenset({*_REQUEST, *_ANSWER, *_FLAT, "outcomes"})
_TOKENS = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}  # OpenAI's name: ours
_PICO_USD = Decimal(1) / PICO_PER_USD


def request_of(row: Mapping[str, object]) -> LoggedRequest:
    """The request in a row; None is an absent field, and a nested field may be the text of its JSON.

    Raises InputError naming the field, and never quoting a prompt.
    """
    fields = {name: value for name, value in row.items() if value is not None}
    check_fields(fields, FIELDS)
    for name in _NESTED & fields.keys():
        if isinstance(text := fields[name], str):
            fields[name] = parse_json(text, where=name)
    _nest(fields)
    answer = {name: fields.pop(name) for name in _ANSWER if name in fields}
    answers = fields.pop("outcomes", None)
    if answers is None:
        outcomes = [outcome_of(answer)]
    elif answer:
        raise InputError("is given beside `outcomes`; move it into the outcome it belongs to", where=min(answer))
    elif isinstance(answers, list):
        outcomes = [outcome_of(each, f"outcomes[{i}]") for i, each in enumerate(answers)]
    else:
        raise InputError("must be a list of objects", where="outcomes")
    try:
        return LoggedRequest.model_validate({**fields, "outcomes": outcomes})
    except ValidationError as error:
        raise input_error(error) from None


def outcome_of(answer: object, where: str | None = None) -> Outcome:
    """One answer, with its cost in USD and its usage as it was recorded. `where` is its place in the row."""
    if not isinstance(answer, Mapping):
        raise InputError("must be an object", where=where)
    fields = {name: value for name, value in answer.items() if value is not None}
    check_fields(fields, _ANSWER, where)
    if "cost_usd" in fields:
        fields["cost_pico_usd"] = _pico_usd(fields.pop("cost_usd"), _path(where, "cost_usd"))
    if "usage" in fields:
        fields["usage"] = _usage(fields["usage"], _path(where, "usage"))
    if isinstance(response := fields.get("response"), str):
        fields.setdefault("response_chars", len(response))
    try:
        return Outcome.model_validate(fields)
    except ValidationError as error:
        raise input_error(error, where) from None


def check_fields(names: Iterable[str], known: Iterable[str], where: str | None = None) -> None:
    """InputError naming the first field that is not `known`, and the one that was probably meant."""
    for name in names:
        if name not in known:
            shown = repr(str(name)[:40])[1:-1]  # not more: it may be anything, a prompt too
            close = get_close_matches(shown, known, n=1)
            hint = f"did you mean `{close[0]}`?" if close else "put what is your own into `metadata`"
            raise InputError(f"is not a field of a log; {hint}", where=_path(where, shown))


def input_error(error: ValidationError, where: str | None = None) -> InputError:
    """The first fault of a validation in our words: the path of the field and the reason, not the value."""
    first = error.errors(include_url=False, include_input=False)[0]
    for step in first["loc"]:
        where = f"{where or ''}[{step}]" if isinstance(step, int) else _path(where, step)
    if first["type"] == "missing":
        return InputError("is missing", where=where)
    reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return InputError(reason.removeprefix("Input "), where=where)


def _path(where: str | None, field: str) -> str:
    return f"{where}.{field}" if where else field


def _nest(fields: dict[str, object]) -> None:
    """Move a table's flat columns into the objects they belong to."""
    for name in _FLAT.keys() & fields.keys():
        parent, field = _FLAT[name]
        inside = fields.get(parent, {})
        if not isinstance(inside, Mapping) or field in inside:
            raise InputError(f"is given beside `{parent}`; keep one of the two", where=name)
        fields[parent] = {**inside, field: fields.pop(name)}


def _usage(usage: object, where: str) -> dict[str, object]:
    """The two counts of a provider's usage object, whatever else it holds."""
    if not isinstance(usage, Mapping):
        raise InputError("must be an object", where=where)
    counts = {_TOKENS.get(name, name): value for name, value in usage.items()}
    kept = {name: counts[name] for name in _TOKENS.values() if name in counts}
    if usage and not kept:
        raise InputError("holds neither input_tokens nor output_tokens", where=where)
    return kept


def _pico_usd(usd: object, where: str) -> int:
    """USD as integer pico-USD, rounded half to even; a float counts as the shortest decimal it prints as."""
    written = usd.text if isinstance(usd, JsonNumber) else usd
    if isinstance(written, bool) or not isinstance(written, int | float | str | Decimal):
        raise InputError("must be a number of USD, or its text", where=where)
    try:
        amount = Decimal(str(written))
        pico = int(amount.quantize(_PICO_USD, ROUND_HALF_EVEN) * PICO_PER_USD) if amount.is_finite() else -1
    except InvalidOperation:  # not a number, or beyond 28 digits
        pico = -1
    if not 0 <= pico <= MAX_COST_PICO_USD:
        raise InputError("must be a number of USD between 0 and a million", where=where)
    return pico
