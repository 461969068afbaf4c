"""Outcome tables: one row per prompt and model, read as requests with several outcomes."""

import csv
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.errors import InputError
from serving.tiers import Tier
from training.logs.ladder import Ladder
from training.logs.outcome_table import is_outcome_table, table_name
from training.logs.readers import read_log
from training.logs.record import LoggedRequest
from training.logs.rejects import ReadReport

LADDER = Ladder(tiers=(Tier(name="economy", models=("small", "tiny")), Tier(name="premium", models=("big",))))


def row(prompt_id: str, model: str, score: float | None, **columns: object) -> dict[str, object]:
    return {"prompt_id": prompt_id, "prompt": f"Question {prompt_id}?", "model": model, "score": score} | columns


@pytest.fixture(params=["parquet", "csv"])
def write(request, tmp_path):
    """Writes rows as a table of either format."""

    def write(*rows: dict[str, object]) -> Path:
        names = list(dict.fromkeys(name for each in rows for name in each))
        path = tmp_path / f"exam.{request.param}"
        if request.param == "parquet":
            pq.write_table(pa.table({name: [each.get(name) for each in rows] for name in names}), path)
        else:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, names)
                writer.writeheader()
                writer.writerows(rows)
        return path

    return write


def read(path: Path) -> tuple[list[LoggedRequest], ReadReport]:
    report = ReadReport()
    return list(read_log([path], ladder=LADDER, report=report)), report


def test_rows_of_a_prompt_become_one_request_whether_adjacent_or_not(write):
    path = write(
        row("1", "small", 1.0, dataset="exam", task="maths", split="train"),
        row("2", "small", 0.0, dataset="exam", task="history", split="test"),
        row("1", "big", 0.5, dataset="exam", task="maths", split="train"),
    )

    (one, two), report = read(path)

    assert (one.id, one.prompt, one.metadata.task, one.table, one.split) == (
        "exam:1",
        "Question 1?",
        "maths",
        "exam",
        "train",
    )
    assert [(each.model, each.tier, each.score) for each in one.outcomes] == [
        ("small", "economy", 1.0),
        ("big", "premium", 0.5),
    ]
    assert (two.id, two.split) == ("exam:2", "test")
    assert report.read == 2


def test_models_off_the_ladder_are_left_out_and_counted(write):
    (request,), report = read(write(row("1", "other", 1.0), row("1", "small", 1.0), row("2", "other", 1.0)))

    assert [outcome.model for outcome in request.outcomes] == ["small"]
    assert dict(report.off_ladder) == {"other": 2}


def test_a_table_without_a_dataset_goes_by_its_files_name(write):
    path = write(row("1", "small", 1.0))

    assert table_name(path) == "exam"
    assert read(path)[0][0].id == "exam:1"


def test_a_table_goes_by_its_dataset(write):
    assert table_name(write(row("1", "small", 1.0, dataset="finals"))) == "finals"


def test_a_missing_score_is_an_answer_without_an_outcome(write):
    (one, two), report = read(write(row("1", "small", None), row("2", "small", 1.0)))

    assert (one.outcomes[0].score, one.judged) == (None, False)
    assert two.judged
    assert report.unlabelled == 1


def test_unknown_costs_and_tokens_stay_unknown(write):
    (one, two), _ = read(
        write(
            row("1", "small", 1.0, cost_usd=0.25, input_tokens=10, output_tokens=3),
            row("2", "small", 1.0, cost_usd=None, input_tokens=None, output_tokens=None),
        )
    )

    assert (one.outcomes[0].cost_pico_usd, one.outcomes[0].usage.output_tokens) == (250_000_000_000, 3)
    assert (two.outcomes[0].cost_pico_usd, two.outcomes[0].usage.output_tokens) == (None, None)


def test_the_length_of_a_response_is_kept_and_the_response_is_not(write):
    (one,), _ = read(write(row("1", "small", 1.0, response="four")))
    assert (one.outcomes[0].response, one.outcomes[0].response_chars) == (None, 4)

    (two,), _ = read(write(row("1", "small", 1.0, response="cut", response_chars=900)))
    assert two.outcomes[0].response_chars == 900


def test_the_first_wording_of_a_prompt_counts_and_the_others_are_noted(write):
    (request,), report = read(write(row("1", "small", 1.0), row("1", "big", 1.0) | {"prompt": "Question 1 ?"}))

    assert request.prompt == "Question 1?"
    assert any("1 prompts are worded in several ways" in note for note in report.notes)


def test_a_prompt_with_one_row_in_the_test_split_is_a_test_prompt(write):
    (request,), _ = read(write(row("1", "small", 1.0, split="train"), row("1", "big", 1.0, split="test")))

    assert request.split == "test"


def test_a_score_below_zero_counts_as_zero_and_one_above_one_is_a_reject(write):
    (one, two), report = read(write(row("1", "small", -0.03), row("2", "small", 1.0), row("2", "big", 7.0)))

    assert one.outcomes[0].score == 0
    assert len(two.outcomes) == 1
    assert [reject.reason for reject in report.first] == ["score: should be less than or equal to 1"]
    assert any("1 scores below 0 count as 0" in note for note in report.notes)


def test_a_row_without_a_model_or_prompt_is_a_reject(write):
    requests, report = read(
        write(row("1", "small", 1.0), row("2", "small", 1.0) | {"model": None}, row("3", "big", 1.0) | {"prompt": None})
    )

    assert len(requests) == 1
    assert [reject.reason for reject in report.first] == ["model: is empty", "prompt: is empty"]


def test_a_prompt_that_cannot_be_read_is_a_reject_of_its_first_row(write):
    requests, report = read(write(row("1", "small", 1.0), row("2", "small", 1.0) | {"prompt": " "}))

    assert len(requests) == 1
    assert [reject.reason for reject in report.first] == ["prompt: is empty: there is no text to route"]


def test_a_table_without_a_model_of_the_ladder_is_an_error_that_lists_its_models(write):
    with pytest.raises(InputError, match="no model of the table is on the ladder; it has other"):
        read(write(row("1", "other", 1.0)))


def test_a_table_needs_a_ladder_and_a_prompt(write):
    with pytest.raises(InputError, match="--ladder"):
        read_log([write(row("1", "small", 1.0))])

    path = write({"prompt_id": "1", "model": "small", "score": 1.0})
    with pytest.raises(InputError, match="needs the column 'prompt'"):
        read(path)


def test_scores_in_single_precision_lose_its_noise(tmp_path):
    path = tmp_path / "exam.parquet"
    columns = {"prompt_id": ["1", "2"], "prompt": ["a", "b"], "model": ["small"] * 2}
    pq.write_table(pa.table({**columns, "score": pa.array([0.7, math.nan], pa.float32())}), path)

    (one, two), _ = read(path)

    assert one.outcomes[0].score == 0.7
    assert two.outcomes[0].score is None


def test_a_log_is_not_taken_for_an_outcome_table():
    assert is_outcome_table(["prompt_id", "prompt", "model", "score"])
    assert not is_outcome_table(["id", "prompt", "model", "score"])
    assert not is_outcome_table(["prompt_id", "model", "score", "acceptable"])
