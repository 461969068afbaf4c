"""Reading logs from files: formats, what is refused and how the reading goes on."""

import csv
import gzip
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import InputError
from serving.tiers import Tier
from training.logs import files
from training.logs.ladder import Ladder
from training.logs.readers import read_log
from training.logs.rejects import ReadReport, RejectFile

LADDER = Ladder(tiers=(Tier(name="economy", models=("small",)), Tier(name="premium", models=("big",))))


def line(name: str, **fields: object) -> bytes:
    return json.dumps({"id": name, "prompt": f"What is {name}?", "model": "small"} | fields).encode()


def log(tmp_path: Path, *lines: bytes, name: str = "log.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def read(*paths: Path, **options) -> tuple[list[str], ReadReport]:
    report = ReadReport()
    return [request.id for request in read_log(paths, report=report, **options)], report


def reasons(report: ReadReport) -> list[tuple[int, str]]:
    return [(reject.line, reject.reason) for reject in report.first]


def test_a_bad_line_is_reported_and_the_reading_goes_on(tmp_path):
    ids, report = read(log(tmp_path, line("a"), line("b", score=7), line("c", acceptable=True)))

    assert ids == ["a", "c"]
    assert reasons(report) == [(2, "score: should be less than or equal to 1")]
    assert (report.read, report.rejected, report.unlabelled) == (2, 1, 1)


def test_strict_ends_the_run_at_the_first_bad_line(tmp_path):
    path = log(tmp_path, line("a"), line("b", score=7), line("c"))

    with pytest.raises(InputError, match=r"log\.jsonl, line 2: score: should be less than"):
        read(path, strict=True)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"id": "b", ', "is not JSON: Expecting property name enclosed in double quotes at character"),
        (b"[1, 2]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"id": "b\xff"}', "is not UTF-8 at byte 10: invalid start byte"),
        (b'{"id": "b\x00"}', "is not JSON: Invalid control character"),
        (b"\x00\x00", "is not JSON"),
        (b'{"score": NaN}', "holds NaN, which is not JSON"),
        (b'{"score": -Infinity}', "holds -Infinity, which is not JSON"),
        (b'{"score": 1e999}', "holds a number too large"),
        (b"[" * 100_000, "is nested too deeply to be read"),
        (b'{"id": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (line("b", prompt="\ud800"), "prompt: holds a lone surrogate at position 0"),
    ],
)
def test_a_line_that_cannot_be_read_is_a_reject(tmp_path, bad, reason):
    ids, report = read(log(tmp_path, line("a"), bad, line("c")))

    assert ids == ["a", "c"]
    [(number, found)] = reasons(report)
    assert number == 2
    assert found.startswith(reason)


def test_blank_lines_and_a_byte_order_mark_are_no_fault(tmp_path):
    ids, report = read(log(tmp_path, b"\xef\xbb\xbf" + line("a"), b"", b"  \r", line("b")))

    assert ids == ["a", "b"]
    assert report.rejected == 0


def test_a_huge_line_is_a_reject_that_is_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_LINE", 200)  # 16 MB would make a slow test
    ids, report = read(log(tmp_path, line("a"), line("b", response="x" * 1000), line("c")))

    assert ids == ["a", "c"]
    assert reasons(report) == [(2, "is longer than 200 bytes")]


def test_a_second_row_with_an_id_is_refused_naming_the_first(tmp_path):
    first = log(tmp_path, line("a"), line("b"), name="one.jsonl")
    second = log(tmp_path, line("c"), line("b"), name="two.jsonl")

    ids, report = read(first, second)

    assert ids == ["a", "b", "c"]
    assert reasons(report) == [(2, f"id: is that of {first}, line 2, too")]


def test_an_id_whose_first_row_was_refused_is_still_free(tmp_path):
    ids, _ = read(log(tmp_path, line("a", score=7), line("a")))

    assert ids == ["a"]


def test_rejects_are_kept_as_they_were_written_for_their_owner_only(tmp_path):
    bad = line("b", score=7)
    with RejectFile(tmp_path / "log.rejects.jsonl") as rejects:
        read(log(tmp_path, line("a"), bad), rejects=rejects)

    [entry] = map(json.loads, rejects.path.read_text().splitlines())
    assert entry == {
        "file": str(tmp_path / "log.jsonl"),
        "line": 2,
        "reason": "score: should be less than or equal to 1",
        "row": bad.decode(),
    }
    assert rejects.path.stat().st_mode & 0o777 == 0o600


def test_rejects_of_an_earlier_run_are_replaced_and_closed_to_others(tmp_path):
    path = tmp_path / "log.rejects.jsonl"
    path.write_text("old\n")
    path.chmod(0o644)

    with RejectFile(path) as rejects:
        read(log(tmp_path, line("a"), b"?"), rejects=rejects)

    assert len(path.read_text().splitlines()) == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_reject_there_is_no_reject_file(tmp_path):
    with RejectFile(tmp_path / "log.rejects.jsonl") as rejects:
        read(log(tmp_path, line("a")), rejects=rejects)

    assert not rejects.path.exists()


def test_a_report_counts_reasons_whatever_their_positions(tmp_path):
    _, report = read(log(tmp_path, line("a"), b'{"id"', b'{"id": "b"', line("c", score=7)))

    assert dict(report.reasons) == {
        "is not JSON: Expecting ':' delimiter at character N": 1,
        "is not JSON: Expecting ',' delimiter at character N": 1,
        "score: should be less than or equal to N": 1,
    }
    assert str(report).startswith("1 read, 3 rejected, 1 without an outcome")


def test_gzip_is_read(tmp_path):
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress(line("a") + b"\n" + line("b")))

    assert read(path)[0] == ["a", "b"]


def test_of_a_gzip_that_breaks_off_what_was_read_stays(tmp_path):
    whole = gzip.compress(b"\n".join(line(f"row {i}", response="x" * i) for i in range(5000)))
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])

    ids, report = read(path)

    assert 0 < len(ids) < 5000
    [(number, reason)] = reasons(report)
    assert number == len(ids) + 1
    assert reason.startswith("the file is damaged from here on")


@pytest.mark.parametrize("name", ["log.txt", "log.parquet.gz", "log"])
def test_a_file_of_an_unknown_kind_is_refused_before_any_is_read(tmp_path, name):
    with pytest.raises(InputError, match=r"must be named \.jsonl"):
        read_log([log(tmp_path, line("a")), log(tmp_path, line("a"), name=name)])


@pytest.mark.parametrize("name", ["none.jsonl", "none.csv", "none.parquet"])
def test_a_file_that_is_not_there_is_refused_before_any_is_read(tmp_path, name):
    with pytest.raises(InputError, match=rf"{name}: cannot be read"):
        read_log([log(tmp_path, line("a")), tmp_path / name])


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log.jsonl.gz", "log.csv.gz", "log.parquet"])
def test_an_empty_file_is_an_error(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")

    with pytest.raises(InputError, match=name):
        read(path)


def test_a_file_without_a_readable_row_is_an_error_with_an_example(tmp_path):
    with pytest.raises(InputError, match=r"holds no request that can be read; 2 rejected; .*line 1: is not JSON"):
        read(log(tmp_path, b"?", b"!"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60)))
def test_arbitrary_bytes_give_rejects_and_nothing_else(tmp_path, lines):
    for name, good in (("log.jsonl", line("good")), ("log.csv", b"id,prompt,model\r\ngood,What?,small\r\n")):
        ids, report = read(log(tmp_path, good, *lines, name=name))

        assert "good" in ids
        assert report.read == len(ids)


def table(tmp_path: Path, *rows: dict[str, object]) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path / "log.csv"
    path.write_text(text.getvalue(), encoding="utf-8-sig", newline="")
    return path


def test_csv_holds_nested_fields_as_json_and_absent_ones_as_empty_cells(tmp_path):
    messages = [{"role": "system", "content": "Short."}, {"role": "user", "content": 'Why,\n"why"?'}]
    path = table(
        tmp_path,
        {"id": 1, "messages": json.dumps(messages), "model": "small", "acceptable": "true", "output_tokens": "12"},
        {"id": 2, "prompt": "Two\nlines", "model": "small", "acceptable": "", "cost_usd": "0.1", "team": "billing"},
    )

    one, two = read_log([path])

    assert one.messages == messages
    assert one.outcomes[0].acceptable is True
    assert one.outcomes[0].usage.output_tokens == 12
    assert two.prompt == "Two\nlines"
    assert two.outcomes[0].cost_pico_usd == 10**11
    assert two.metadata.team == "billing"
    assert not two.judged


def test_csv_rejects_name_the_line_where_the_record_begins(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(
        b'id,prompt,model\r\na,"two\r\nlines",small\r\nb,What?\r\n\r\nc,\xffWhat?,small\r\nd,"x"y,small\r\ne,What?,small\r\n'
    )
    with RejectFile(tmp_path / "log.rejects.jsonl") as rejects:
        ids, report = read(path, rejects=rejects)

    assert ids == ["a", "e"]
    assert reasons(report) == [
        (4, "has 2 cells, the header has 3"),
        (6, "is not UTF-8"),
        (7, "is not CSV: ',' expected after '\"'"),
    ]
    rows = [json.loads(entry)["row"] for entry in rejects.path.read_text().splitlines()]
    assert rows == ["b,What?", "c,\\xffWhat?,small", 'd,"x"y,small']


def test_a_long_prompt_fits_into_a_csv_cell(tmp_path):
    path = table(tmp_path, {"id": "a", "prompt": "x" * 200_000, "model": "small"})

    assert read(path)[0] == ["a"]


@pytest.mark.parametrize(
    ("header", "fault"),
    [("id,prompt,model,promt", "promt: is not a field of a log; did you mean `prompt`"), ("id,id", "'id' twice")],
)
def test_a_table_with_a_column_that_no_log_has_is_refused(tmp_path, header, fault):
    path = tmp_path / "log.csv"
    path.write_text(f"{header}\n1,2,3,4\n")

    with pytest.raises(InputError, match=fault):
        read_log([path])


def test_parquet_holds_nested_columns_as_they_are_or_as_json(tmp_path):
    time = datetime(2026, 3, 1, 12, tzinfo=UTC)
    rows = [
        {
            "id": "a",
            "time": time,
            "messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": None, "name": "x"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": None},
            "outcomes": None,
            "model": "small",
            "score": 0.5,
        },
        {"id": "b", "time": time, "prompt": "How?", "outcomes": '[{"model": "big", "acceptable": false}]'},
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    data = {name: [row.get(name) for row in rows] for name in columns}
    metadata = pa.array([[("team", "billing")], None], pa.map_(pa.string(), pa.string()))
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({**data, "metadata": metadata, "__index_level_0__": [0, 1]}), path)

    one, two = read_log([path])

    assert one.messages == [{"role": "user", "content": "Why?"}, {"role": "assistant", "name": "x"}]
    assert (one.time, one.metadata.team, one.outcomes[0].usage.input_tokens) == (time, "billing", 5)
    assert (two.outcomes[0].model, two.outcomes[0].acceptable) == ("big", False)


def test_parquet_times_in_nanoseconds_are_read_and_those_without_a_zone_refused(tmp_path):
    path = tmp_path / "log.parquet"
    for zone in ("UTC", None):
        times = pa.array([1_772_366_400_000_000_001], pa.timestamp("ns", tz=zone))
        pq.write_table(pa.table({"id": ["a"], "prompt": ["x"], "model": ["small"], "time": times}), path)
        if zone:
            [request] = read_log([path])
            assert request.time is not None
            assert request.time - datetime(2026, 3, 1, 12, tzinfo=UTC) < timedelta(milliseconds=1)
            assert type(request.time) is datetime
        else:
            with pytest.raises(InputError, match="time: has no zone"):
                read(path)


def test_a_bad_row_of_parquet_is_a_reject_with_its_number_and_its_json(tmp_path):
    texts = pa.array([b"What?", b"\xff", b"Why?"], pa.binary()).view(pa.string())
    path = tmp_path / "log.parquet"
    pq.write_table(
        pa.table({"id": ["a", "b", "c"], "prompt": texts, "score": [0.1, 0.2, 7], "model": ["small"] * 3}), path
    )

    with RejectFile(tmp_path / "log.rejects.jsonl") as rejects:
        ids, report = read(path, rejects=rejects)

    assert ids == ["a"]
    assert reasons(report) == [
        (2, "cannot be read: UnicodeDecodeError"),
        (3, "score: should be less than or equal to 1"),
    ]
    mended = json.loads(json.loads(rejects.path.read_text().splitlines()[1])["row"]) | {"score": 0.7}
    assert read(log(tmp_path, json.dumps(mended).encode()))[0] == ["c"]


def test_of_a_parquet_file_damaged_in_the_middle_what_was_read_stays(tmp_path):
    path = tmp_path / "log.parquet"
    ids = [f"row {i}" for i in range(4000)]
    columns = pa.table({"id": ids, "prompt": ["x"] * 4000, "model": ["small"] * 4000})
    pq.write_table(columns, path, row_group_size=2000, compression="gzip", use_dictionary=False)
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 500] = b"\xff" * 500
    path.write_bytes(content)

    read_ids, report = read(path)

    assert read_ids == ids[:2000]
    [(number, reason)] = reasons(report)
    assert number == 2001
    assert reason.startswith("the file is damaged from here on")


def test_the_ladder_gives_an_answer_the_tier_of_its_model(tmp_path):
    path = log(tmp_path, line("a"), line("b", model="big", tier="economy"), line("c", model="old", tier="premium"))

    tiers = [request.outcomes[0].tier for request in read_log([path], ladder=LADDER)]

    assert tiers == ["economy", "premium", "premium"]


def test_answers_off_the_ladder_are_counted(tmp_path):
    _, report = read(log(tmp_path, line("a"), line("b", model="other"), line("c", model="other")), ladder=LADDER)

    assert dict(report.off_ladder) == {"other": 2}
    assert "not on the ladder: other (2)" in str(report)
