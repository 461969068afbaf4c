"""What is taken out of a request before its text is stored: a function of the operator's, applied to every text."""

from collections.abc import Callable
from importlib import import_module
from typing import Final

from serving.errors import ConfigurationError

Redact = Callable[[str], str]
_OF_THE_FORM: Final = {
    "role": {"system", "developer", "user", "assistant", "tool", "function"},
    "type": {
        "text", "image_url", "input_audio", "file", "refusal", "function", "custom", "json_object", "json_schema",
        "object", "array", "string", "number", "integer", "boolean", "null",
    },
}  # fmt: skip
"""Words that a request is read by. Under these names, anything else is text like any other."""


def load_redaction(path: str) -> Redact:
    """The function at `package.module:name`, from text to text. Raises ConfigurationError when there is none."""
    module, _, name = path.partition(":")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"redact: {path!r} cannot be loaded: {error}; name a function as package.module:function"
        ) from None
    if not callable(function):
        raise ConfigurationError(f"redact: {path!r} is no function")
    return function  # type: ignore[no-any-return]


def redacted(value: object, redact: Redact) -> object:
    """The JSON value with every text in it replaced by what `redact` makes of it; the names of fields stay."""
    if isinstance(value, str):
        made = redact(value)
        if not isinstance(made, str):
            raise TypeError(f"the redaction gave {type(made).__name__}, not text")
        return made
    if isinstance(value, list):
        return [redacted(item, redact) for item in value]
    if isinstance(value, dict):
        return {name: item if _is_of_the_form(name, item) else redacted(item, redact) for name, item in value.items()}
    return value


def _is_of_the_form(name: str, item: object) -> bool:
    return isinstance(item, str) and item in _OF_THE_FORM.get(name, ())
