"""Does a value fit the JSON schema that a client gave? A schema is a program of a stranger's: it is bounded first.

The checker follows no address, and its patterns take time in proportion to the text. What is left to bound is how many
parts of a schema may meet how many parts of an answer, since a part can refer to the same other part many times.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from jsonschema_rs import ReferencingError, RegexOptions, ValidationError, validator_for
from pydantic_core import to_json

_MOST_BYTES: Final = 100_000  # of a schema; OpenAI takes some 120,000 characters of names and values
_MOST_PARTS: Final = 20_000  # of a schema, counted where they are referred to
_MOST_WORK: Final = 50_000_000
"""Parts of the schema times characters of the answer. Of schemas built to be slow the slowest took .7 s, by a pattern;
meanwhile the event loop was held up 1 ms, since the checker lets go of the interpreter's lock."""
_MOST_PATTERNS: Final = 100
_DEEPEST: Final = 60
_PATTERNS: Final = RegexOptions(size_limit=500_000, dfa_size_limit=500_000)
_REBASED: Final = frozenset({"$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor"})
"""Keywords by which a reference may mean something else than the path it shows; structured outputs have none."""


class Form(NamedTuple):
    """JSON that was asked for. schema: that it is to fit; None: any."""

    schema: Mapping[str, Any] | None


def form_asked(asked: Mapping[str, Any]) -> Form | None:
    """The form of the answer that a request of either API asks for; None where it asks for none."""
    text = asked.get("text")
    form = asked.get("response_format") or (text.get("format") if isinstance(text, Mapping) else None)
    if not isinstance(form, Mapping) or form.get("type") not in ("json_object", "json_schema"):
        return None
    inner = form.get("json_schema")
    schema = (inner if isinstance(inner, Mapping) else form).get("schema")
    return Form(schema if isinstance(schema, Mapping) and form["type"] == "json_schema" else None)


def fits(value: object, length: int, schema: Mapping[str, Any]) -> bool:
    """Whether it does; True also where the schema cannot be followed, or not within bounds. length: of it as JSON."""
    try:
        if len(to_json(schema)) > _MOST_BYTES:
            return True
        parts = _Parts(schema)
        work = parts.count(schema, 0) * length
        if work > _MOST_WORK or parts.patterns > _MOST_PATTERNS:
            return True
        checker = validator_for(dict(schema), pattern_options=_PATTERNS, validate_formats=False, offline=True)
        return checker.is_valid(value)
    except (ValueError, ValidationError, ReferencingError):  # no schema, or one that is not followed
        return True


class _Parts:
    """Counts the parts of a schema where they are used; raises ValueError when they are too many or lead elsewhere."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[int, int] = {}
        self.patterns = 0

    def count(self, part: object, depth: int) -> int:
        """A part that is being counted counts once: it is about a smaller part of the answer there, or ends at once."""
        if not isinstance(part, dict | list):
            return 1
        if (known := self._known.get(id(part))) is not None:
            return known
        if depth > _DEEPEST:
            raise ValueError("a schema is nested too deeply")
        self._known[id(part)] = 1
        inner = part if isinstance(part, list) else list(part.values())
        total = 1 + sum(self.count(one, depth + 1) for one in inner)
        if isinstance(part, dict):
            total += self._referred(part, depth)
            properties = part.get("patternProperties")
            self.patterns += isinstance(part.get("pattern"), str)
            self.patterns += len(properties) if isinstance(properties, dict) else 0
        if total > _MOST_PARTS:
            raise ValueError("a schema has too many parts")
        self._known[id(part)] = total
        return total

    def _referred(self, part: Mapping[str, Any], depth: int) -> int:
        if not _REBASED.isdisjoint(part):
            raise ValueError("a schema names its parts by more than their path")
        target = part.get("$ref")
        if not isinstance(target, str):
            return 0
        found: Any = self._root
        for step in target.removeprefix("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            else:
                found = found.get(step) if isinstance(found, Mapping) else None
        if not target.startswith("#") or found is None:
            raise ValueError("a reference leads out of the schema, or nowhere")
        return self.count(found, depth + 1)
