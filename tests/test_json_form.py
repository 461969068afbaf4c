"""JSON that fits a client's schema or does not; and schemas that are there to do harm."""

import random
from typing import Any

import pytest
from pydantic_core import to_json

from serving.upstream.json_form import fits

NODE = {
    "$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                                                        "n": {"type": "integer"}}, "required": ["n", "next"]}},
    "$ref": "#/$defs/node",
}  # fmt: skip


def fitting(value: Any, schema: dict[str, Any]) -> bool:
    return fits(value, len(to_json(value)), schema)


PLAIN: tuple[tuple[Any, dict[str, Any], bool], ...] = (
    ({"n": 1, "next": {"n": 2, "next": None}}, NODE, True),
    ({"n": 1, "next": {"n": 2}}, NODE, False),
    ({"a": 1, "b": 2}, {"type": "object", "properties": {"a": {}}, "additionalProperties": False}, False),
    ("red", {"enum": ["red", "green"]}, True),
    ("blue", {"enum": ["red", "green"]}, False),
    ("AB-12", {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"}, True),
    ("AB-x", {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"}, False),
    (7.5, {"type": "integer"}, False),
    ("tomorrow", {"type": "string", "format": "date"}, True),  # formats are hints
    ("x", {"type": "array", "$schema": "https://json-schema.org/draft/2020-12/schema"}, False),
    ({"a": "x"}, {"properties": {"a": {"$ref": "#/$defs/b/anyOf/1"}},
                  "$defs": {"b": {"anyOf": [True, {"type": "null"}]}}}, False),
)  # fmt: skip


@pytest.mark.parametrize(("value", "schema", "expected"), PLAIN)
def test_a_value_fits_a_schema_or_not(value: Any, schema: dict[str, Any], expected: bool) -> None:
    assert fitting(value, schema) is expected


def nested(schema: dict[str, Any], depth: int) -> dict[str, Any]:
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


def doubled(times: int) -> dict[str, Any]:
    """2 to that power, if each reference is followed."""
    ends = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(times)}
    return {"$defs": {**ends, f"d{times}": {"type": "null"}}, "$ref": "#/$defs/d0"}


UNUSABLE: tuple[dict[str, Any], ...] = (
    {"type": "sausage"}, {"pattern": "("}, {"pattern": "^(?!x)"}, {"$ref": "#/$defs/absent"}, {"$ref": "other.json"},
    {"$ref": "http://127.0.0.1:9/schema.json"}, {"$id": "http://127.0.0.1:9/x", "$ref": "y", "type": "null"},
    {"$dynamicRef": "#a", "type": "null"}, {"type": "null", "$schema": "http://127.0.0.1:9/own"}, doubled(50),
    nested({"type": "null"}, 5_000), {"enum": ["x" * 200_000]}, {"pattern": "(a{1000}){1000}"},
    {"allOf": [{"pattern": f"^{i}"} for i in range(101)]}, {"type": "null", "description": "\ud800"},
)  # fmt: skip


@pytest.mark.parametrize("schema", UNUSABLE)
def test_what_cannot_be_followed_or_not_within_bounds_fits_anything(schema: dict[str, Any]) -> None:
    assert fitting("text", schema)


def test_a_schema_that_refers_to_itself_in_every_way_comes_to_an_end() -> None:
    for schema in (
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"anyOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}], "required": ["b"]},
    ):
        fitting(nested({}, 40), schema)


def test_a_pattern_takes_time_in_proportion_to_the_text() -> None:
    text = "".join(random.Random(1).choices("ab", k=20_000))
    assert fitting(text + "c", {"pattern": "^(a+|b+)+$"}) is False
