"""How does a table of outcomes, one row per prompt and model, become logged requests?"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from serving.errors import InputError
from training.logs.files import Row, columns_of, csv_rows, format_of, parquet_rows
from training.logs.ladder import Ladder
from training.logs.record import LoggedRequest, LogMetadata, Outcome
from training.logs.rejects import Refusals
from training.logs.rows import input_error, outcome_of

_REQUIRED = frozenset({"prompt_id", "prompt", "model", "score"})
_USED = frozenset({*_REQUIRED, "dataset", "task", "split", "cost_usd", "input_tokens", "output_tokens"})


def is_outcome_table(columns: Iterable[str]) -> bool:
    """Whether columns are those of an outcome table rather than of a log."""
    names = frozenset(columns)
    return {"prompt_id", "model", "score"} <= names and not names & {"id", "outcomes", "acceptable"}


def table_name(path: Path) -> str | None:
    """What an outcome table calls itself: its first `dataset`, or its file's name; None for a log."""
    columns = columns_of(path)
    if columns is None or not is_outcome_table(columns):
        return None
    if "dataset" not in columns:
        return _stem(path)
    rows = parquet_rows(path, ["dataset"]) if format_of(path) == "parquet" else csv_rows(path)
    first = next(rows, None)
    return str(first.values.get("dataset") or _stem(path)) if first else None


@dataclass(slots=True)
class _Prompt:
    """The rows of one prompt so far; `row` is the number of the first."""

    row: int
    text: object
    task: object
    split: object
    outcomes: list[Outcome] = field(default_factory=list)


def table_requests(
    path: Path, columns: tuple[str, ...], ladder: Ladder, refusals: Refusals
) -> Iterator[tuple[Row, LoggedRequest]]:
    """One request per (dataset, prompt_id), with the outcomes of the ladder's models, in order of first rows.

    Rows of a prompt need not be adjacent, so the prompts are held until the table has been read; responses
    are not, only their lengths. Of a prompt whose rows differ, the first wording counts, and the split `test`
    if any row says so, lest a test prompt be trained on.
    """
    if missing := _REQUIRED - frozenset(columns):
        raise InputError(f"{path}: an outcome table needs the column {min(missing)!r}")
    for (dataset, prompt_id), prompt in _prompts(path, columns, ladder, refusals).items():
        try:
            request = _request(dataset, prompt_id, prompt)
        except InputError as error:
            refusals.add(path, prompt.row, str(error), None)
        else:
            yield Row(prompt.row, {}), request


def _prompts(
    path: Path, columns: tuple[str, ...], ladder: Ladder, refusals: Refusals
) -> dict[tuple[str, str], _Prompt]:
    """The prompts of a table by dataset and id, and what is odd about them noted in the report."""
    prompts: dict[tuple[str, str], _Prompt] = {}
    differing: set[tuple[str, str]] = set()
    below_zero = 0
    off_ladder: Counter[str] = Counter()
    for row in _rows_on_ladder(path, columns, ladder, off_ladder):
        values = {name: value for name, value in row.values.items() if value is not None and value == value}
        try:
            if row.fault is not None:
                raise InputError(row.fault)
            score = _score(values.get("score"))
            outcome = _outcome(values, ladder, score)
            key = (str(values.get("dataset") or _stem(path)), str(_present(values, "prompt_id")))
            text = _present(values, "prompt")
        except InputError as error:
            refusals.add(path, row.number, str(error), row.text)
            continue
        below_zero += score is not None and score < 0
        if (prompt := prompts.get(key)) is None:
            prompt = prompts[key] = _Prompt(row.number, text, values.get("task"), values.get("split"))
        elif prompt.text != text:
            differing.add(key)
        if values.get("split") == "test":
            prompt.split = "test"
        prompt.outcomes.append(outcome)

    refusals.report.off_ladder.update(off_ladder)
    notes = refusals.report.notes
    if differing:
        notes.append(f"{path}: {len(differing):,} prompts are worded in several ways; the first is used")
    if below_zero:
        notes.append(f"{path}: {below_zero:,} scores below 0 count as 0")
    if not prompts and off_ladder:
        raise InputError(f"{path}: no model of the table is on the ladder; it has {', '.join(sorted(off_ladder))}")
    return prompts


def _rows_on_ladder(path: Path, columns: tuple[str, ...], ladder: Ladder, off_ladder: Counter[str]) -> Iterator[Row]:
    """The rows of models on the ladder, and those that cannot be read or name none; others are counted."""
    if format_of(path) == "csv":
        for row in csv_rows(path):
            model = row.values.get("model")
            if row.fault is None and isinstance(model, str) and ladder.tier_of(model) is None:
                off_ladder[model] += 1
            else:
                yield row
        return

    on_ladder_models = pa.array([model for tier in ladder.tiers for model in tier.models])

    def select(batch: Any) -> Any:
        models = batch["model"].cast(pa.string())
        for counted in pc.value_counts(models).to_pylist():
            if counted["values"] is not None and ladder.tier_of(counted["values"]) is None:
                off_ladder[counted["values"]] += counted["counts"]
        return pc.or_(pc.is_in(models, value_set=on_ladder_models), pc.is_null(models))

    length = "response_chars" if "response_chars" in columns else "response"
    wanted = [name for name in columns if name in _USED or name == length]
    yield from parquet_rows(path, wanted, select)


def _score(value: object) -> float | None:
    """The score of a row, without a float32's noise: .7 comes back as .69999999 and misses a limit of .7."""
    if value is None:
        return None
    try:
        score = round(float(str(value)), 6)
    except (ValueError, OverflowError):
        raise InputError("must be a number from 0 to 1", where="score") from None
    return None if score != score else score


def _outcome(values: dict[str, object], ladder: Ladder, score: float | None) -> Outcome:
    model = _present(values, "model")
    response = values.get("response")
    return outcome_of(
        {
            "model": model,
            "tier": ladder.tier_of(str(model)),
            "score": None if score is None else max(score, 0.0),
            "cost_usd": values.get("cost_usd"),
            "usage": {name: values[name] for name in ("input_tokens", "output_tokens") if name in values},
            "response_chars": values.get("response_chars", len(response) if isinstance(response, str) else None),
        }
    )


def _present(values: dict[str, object], name: str) -> object:
    if name not in values:
        raise InputError("is empty", where=name)
    return values[name]


def _request(dataset: str, prompt_id: str, prompt: _Prompt) -> LoggedRequest:
    try:
        return LoggedRequest.model_validate(
            {
                "id": f"{dataset}:{prompt_id}",
                "prompt": prompt.text,
                "metadata": LogMetadata.model_validate({"task": prompt.task}),
                "outcomes": prompt.outcomes,
                "table": dataset,
                "split": prompt.split,
            }
        )
    except ValidationError as error:
        raise input_error(error) from None


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
