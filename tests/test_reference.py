"""The configuration reference says what the code says."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from serving.settings import Settings
from training.config import TrainingConfig
from training.data import DATASETS
from training.reference import reference


def fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for model in (schema, *schema["$defs"].values()):
        yield from model["properties"].items()


def test_the_page_is_that_of_the_settings_as_they_are() -> None:
    page = DATASETS.parent / "docs" / "configuration.md"
    assert page.read_text("utf-8") == reference(), "docs/configuration.md is stale; run: make docs"


@pytest.mark.parametrize("model", [Settings, TrainingConfig])
def test_every_setting_has_a_description(model: type[Settings | TrainingConfig]) -> None:
    bare = [
        name for name, field in fields(model.model_json_schema()) if not ("description" in field or "$ref" in field)
    ]
    assert bare == []


@pytest.mark.parametrize(
    "row",
    [
        "| `TIERWISE_PORT` | `port` | whole number, 1 to 65,535 | `3000` | port to listen on |",
        "| `TIERWISE_TIERS` | `tiers` | list: at least 2 tables, see below | not set |",
        "| `TIERWISE_EXPLORATION` | `exploration` | number, ≥ 0, < 1 | `0.0` |",
        "| `models` | list: text | needed |",
        "| `usd_per_mtok_in` | number | not set |",
        "| `targets` | list: number, > 0, < 1 | `[0.9, 0.95, 0.98, 0.99]` |",
        "### `[training.heads]`",
    ],
)
def test_a_row_has_name_type_bounds_and_default(row: str) -> None:
    assert any(line.startswith(row) for line in reference().splitlines())
