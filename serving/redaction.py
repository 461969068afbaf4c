"""What is taken out of a request before its text is stored: a function of the operator's, applied to every text."""

from collections.abc import Callable
from importlib import import_module
from typing import Final

from serving.errors import ConfigurationError

Redact = Callable[[str], str]
_NOT_TEXT: Final = ("role", "type")  # words of the form itself


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
    """The JSON value with every text in it replaced by what `redact` makes of it."""
    if isinstance(value, str):
        made = redact(value)
        if not isinstance(made, str):
            raise TypeError(f"the redaction gave {type(made).__name__}, not text")
        return made
    if isinstance(value, list):
        return [redacted(item, redact) for item in value]
    if isinstance(value, dict):
        return {name: item if name in _NOT_TEXT else redacted(item, redact) for name, item in value.items()}
    return value
