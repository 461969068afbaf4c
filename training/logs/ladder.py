"""What is the ladder of tiers, and how is it read from a file?"""

import csv
import json
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.errors import InputError
from serving.tiers import Tier, TierEntry, pico_usd_per_token
from training.logs.rows import input_error

Prices = Mapping[str, tuple[int, int]]
"""Of a model: pico-USD per input token and per output token."""


class Ladder(BaseModel):
    """The tiers, cheapest first, and the score from which an answer is acceptable (None: the default)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiers: tuple[Tier, ...] = Field(min_length=2)
    acceptable_from: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _nothing_stands_twice(self) -> Self:
        names = [tier.name for tier in self.tiers]
        models = [model for tier in self.tiers for model in tier.models]
        for what, given in (("tier", names), ("model", models)):
            if repeated := {name for name in given if given.count(name) > 1}:
                raise ValueError(f"has the {what} {min(repeated)!r} twice; a {what} has one place on a ladder")
        return self

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The tiers' names, cheapest first."""
        return tuple(tier.name for tier in self.tiers)

    @cached_property
    def _tier_by_model(self) -> dict[str, str]:
        return {model: tier.name for tier in self.tiers for model in tier.models}

    def tier_of(self, model: str | None) -> str | None:
        """The tier a model belongs to, None if it is not on the ladder."""
        return None if model is None else self._tier_by_model.get(model)

    def with_prices(self, prices: Prices) -> Self:
        """The ladder with each unpriced tier at the price of the first of its models that has one."""
        tiers = []
        for tier in self.tiers:
            price = next((prices[model] for model in tier.models if model in prices), None)
            if price is not None and not tier.priced:
                tier = tier.model_copy(update={"input_pico_usd": price[0], "output_pico_usd": price[1]})
            tiers.append(tier)
        return type(self)(tiers=tuple(tiers), acceptable_from=self.acceptable_from)


class _LadderFile(BaseModel):
    """Our own form of a ladder file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiers: tuple[TierEntry, ...]
    acceptable_from: float | None = None


def read_ladder(path: Path, table: str | None = None) -> Ladder:
    """The ladder in a JSON or TOML file; of a file with a ladder for each table, that of `table`.

    Raises InputError if the file cannot be read, does not describe a ladder, or has several and none for
    `table`.
    """
    content = _read_object(path)
    try:
        if "tiers" in content:
            written = _LadderFile.model_validate(content)
            return Ladder(
                tiers=tuple(entry.tier() for entry in written.tiers),
                acceptable_from=written.acceptable_from,
            )
        return _ladder_of_entry(_chosen_entry(content, table))
    except ValidationError as error:
        raise InputError(f"{path}: {input_error(error)}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_prices(path: Path) -> dict[str, tuple[int, int]]:
    """List prices of models, read from a CSV of USD per million tokens into pico-USD per token.

    Columns: model, usd_per_mtok_in, usd_per_mtok_out; others, such as source, are not read.
    Raises InputError naming the line of a price that is no number, or of a model with a second price.
    """
    prices: dict[str, tuple[int, int]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for name in ("model", "usd_per_mtok_in", "usd_per_mtok_out"):
                if name not in (reader.fieldnames or ()):
                    raise InputError(f"{path}: needs the column {name!r}")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                try:
                    price = tuple(pico_usd_per_token(row[f"usd_per_mtok_{way}"]) for way in ("in", "out"))
                except ValueError as error:
                    raise InputError(f"{where}: {error}") from None
                model, known = row["model"], prices.get(row["model"])
                if known is not None and known != price:
                    raise InputError(f"{where}: {model!r} has another price further up; keep one of them")
                prices[model] = (price[0], price[1])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return prices


def _read_object(path: Path) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        toml = path.suffix == ".toml"
        content = tomllib.loads(text, parse_float=Decimal) if toml else json.loads(text, parse_float=Decimal)
    except (OSError, ValueError, RecursionError) as error:  # both parsers' errors are ValueErrors
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be an object with `tiers`, or with a ladder for each table")
    return content


def _chosen_entry(content: Mapping[str, object], table: str | None) -> Mapping[str, object]:
    """The entry of `table`, or the only one; keys that start with an underscore are comments."""
    entries = {name: entry for name, entry in content.items() if not name.startswith("_")}
    if table is None and len(entries) == 1:
        (table,) = entries
    entry = entries.get(table or "")
    if entry is None:
        wanted = "which table is meant was not said" if table is None else f"there is no ladder for {table!r}"
        raise InputError(f"{wanted}; there are ladders for {', '.join(entries) or 'no table'}")
    if not isinstance(entry, Mapping):
        raise InputError("must be an object of tiers and their models", where=table)
    return entry


def _ladder_of_entry(entry: Mapping[str, object]) -> Ladder:
    tiers = [
        {"name": name, "models": models}
        for name, models in entry.items()
        if name != "acceptable_from" and not name.startswith("_")
    ]
    return Ladder.model_validate({"tiers": tiers, "acceptable_from": entry.get("acceptable_from")})
