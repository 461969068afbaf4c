"""Which settings are there? The configuration reference, written from the settings themselves.

python -m training.reference docs/configuration.md
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from serving.settings import Settings
from training.config import TrainingConfig

Schema = Mapping[str, Any]

_FILE: Final = """\
The file is `tierwise.toml` in the working folder; both are read when the service starts. In a variable a list is JSON:
`TIERWISE_PINS='[{"team": "legal", "tier": "premium"}]'`."""
_SERVICE: Final = "| variable | key | | default | meaning |\n|---|---|---|---|---|"
_SECTION: Final = "| key | | default | meaning |\n|---|---|---|---|"
_LIMITS: Final = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
_TYPES: Final = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}


def reference() -> str:
    """The whole page, Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Configuration"
    yield ""
    yield "Written by `make docs` from the code, which checks all of this when it reads the settings."
    yield ""
    yield "## The service"
    yield ""
    service = Settings.model_json_schema()
    yield _paragraph(service)
    yield _FILE
    yield ""
    prefix = str(Settings.model_config["env_prefix"])
    yield _SERVICE
    for name, row in _rows(service):
        yield f"| `{prefix}{name.upper()}` {row}"
    for name, field in service["properties"].items():
        if (nested := _table_in(field, service)) is not None:
            yield from _section(f"[[{name}]]", nested, "###")
        elif "$ref" in field:
            yield from _section(f"[{name}]", _referred(field, service), "###")
    training = TrainingConfig.model_json_schema()
    yield from _section("[training]", training, "##")
    for name, field in training["properties"].items():
        if "$ref" in field:
            yield from _section(f"[training.{name}]", _referred(field, training), "###")


def _section(title: str, schema: Schema, level: str) -> Iterator[str]:
    yield ""
    yield f"{level} `{title}`"
    yield ""
    yield _paragraph(schema)
    yield ""
    yield _SECTION
    for _, row in _rows(schema):
        yield row


def _paragraph(schema: Schema) -> str:
    return " ".join(schema["description"].split())


def _rows(schema: Schema) -> Iterator[tuple[str, str]]:
    """Name and cells of each key that is no section of its own."""
    for name, field in schema["properties"].items():
        if "$ref" not in field:
            cells = (f"`{name}`", _kind(field), _default(field, name in schema.get("required", ())))
            yield name, f"| {' | '.join((*cells, field['description']))} |"


def _kind(field: Schema) -> str:
    """What may be written, with its bounds."""
    if "anyOf" in field:
        return " or ".join(_kind(choice) for choice in field["anyOf"] if choice != {"type": "null"})
    if "$ref" in field:
        return "tables, see below"  # as a list only: other sections have no row
    if field["type"] == "object":
        return "table: text for each name"
    if field["type"] == "array":
        fewest = f"at least {field['minItems']} " if field.get("minItems", 1) > 1 else ""
        return f"list: {fewest}{_kind(field['items'])}"
    if "enum" in field:
        return " or ".join(f"`{choice}`" for choice in field["enum"])
    limits = [f"{sign} {field[name]:,}" for name, sign in _LIMITS if name in field]
    if "minimum" in field and "maximum" in field:
        limits = [f"{field['minimum']:,} to {field['maximum']:,}"]
    if "maxLength" in field:
        limits.append(f"at most {field['maxLength']} characters")
    if "pattern" in field:
        limits.append(f"`{field['pattern']}`")
    kind = "path" if field.get("format") == "path" else _TYPES[field["type"]]
    return ", ".join([kind, *limits])


def _default(field: Schema, required: bool) -> str:
    if required:
        return "needed"
    value = field.get("default")
    return "not set" if value in (None, [], {}) else f"`{json.dumps(value)}`"


def _table_in(field: Schema, schema: Schema) -> Schema | None:
    """The model of the tables that an array of tables holds; None for whatever is no such array."""
    for choice in field.get("anyOf", [field]):
        if "$ref" in choice.get("items", {}):
            return _referred(choice["items"], schema)
    return None


def _referred(field: Schema, schema: Schema) -> Schema:
    found: Schema = schema["$defs"][field["$ref"].rsplit("/", 1)[1]]
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), "utf-8")
