"""Which rows does a file hold? JSON lines, CSV or Parquet, one row at a time."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from serving.errors import InputError
from training.logs.json_text import parse_json

MAX_LINE: Final = 16 * 1024 * 1024  # bytes of a JSON line, characters of a CSV field
_BATCH: Final = 1024  # Parquet rows in memory at a time
_DAMAGE = (EOFError, OSError, zlib.error)  # what gzip raises at the end of what can be read


@dataclass(frozen=True, slots=True)
class Row:
    """A row as found: its values, or the fault that kept them from being read. `number` counts from 1."""

    number: int
    values: Mapping[str, object]
    raw: str | None = None
    fault: str | None = None

    @property
    def text(self) -> str | None:
        """The row to be mended: as it was written, or as a JSON line where the file is not text."""
        if self.raw is None and self.values:
            return json.dumps(self.values, ensure_ascii=False, default=str)
        return self.raw


def format_of(path: Path) -> str:
    """`jsonl`, `csv` or `parquet`. Raises InputError for any other name."""
    name = path.name.removesuffix(".gz")
    for suffix in ("jsonl", "csv", "parquet"):
        if name.endswith(f".{suffix}") and (name == path.name or suffix != "parquet"):
            return suffix
    raise InputError(f"{path}: must be named .jsonl, .jsonl.gz, .csv, .csv.gz or .parquet")


def columns_of(path: Path) -> tuple[str, ...] | None:
    """The names of a table's columns, None for JSON lines. Raises InputError if the file cannot be opened."""
    kind = format_of(path)
    try:
        if kind == "parquet":
            columns = [name for name in pq.read_schema(path).names if not name.startswith("__index_level_")]
        elif kind == "csv":
            with _opened_text(path) as text:
                columns = next(csv.reader(_lines(text), strict=True), [])
        else:
            with _opened(path) as file:
                file.read(1)
            return None
    except (*_DAMAGE, pa.ArrowException, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not columns:
        raise InputError(f"{path}: has no header")
    if repeated := {name for name in columns if columns.count(name) > 1}:
        raise InputError(f"{path}: has the column {min(repeated)!r} twice")
    return tuple(columns)


def jsonl_rows(path: Path) -> Iterator[Row]:
    """The objects of a file of JSON lines; blank lines are skipped."""
    with _opened(path) as file:
        number = 0
        while True:
            number += 1
            try:
                line = file.readline(MAX_LINE + 1)
                whole = len(line) <= MAX_LINE
                while len(line) > MAX_LINE and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE + 1)
            except _DAMAGE as error:
                yield Row(number, {}, fault=f"the file is damaged from here on: {error}")
                return
            if not whole:
                yield Row(number, {}, fault=f"is longer than {MAX_LINE:,} bytes")
            elif not line:
                return
            elif line.strip():
                yield _json_row(number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _json_row(number: int, line: bytes) -> Row:
    raw = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
    try:
        values = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Row(number, {}, raw, f"is not UTF-8 at byte {error.start + 1}: {error.reason}")
    except InputError as error:
        return Row(number, {}, raw, str(error))
    if not isinstance(values, dict):
        return Row(number, {}, raw, "must be a JSON object")
    return Row(number, values, raw)


def csv_rows(path: Path) -> Iterator[Row]:
    """The records of a CSV file; empty cells are absent. `number` is the line on which a record begins."""
    csv.field_size_limit(MAX_LINE)  # of the whole process; Python's own 131,072 is shorter than long prompts
    with _opened_text(path) as text:
        taken: list[str] = []
        reader = csv.reader(_lines(text, taken), strict=True)
        header = next(reader, [])
        while True:
            taken.clear()
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(number, {}, _mendable("".join(taken)), f"is not CSV: {error}")
                continue
            except _DAMAGE as error:
                yield Row(number, {}, fault=f"the file is damaged from here on: {error}")
                return
            raw = "".join(taken)
            if not raw.isascii() and (mendable := _mendable(raw)) != raw.rstrip("\r\n"):
                yield Row(number, {}, mendable, "is not UTF-8")
            elif cells and len(cells) != len(header):
                yield Row(number, {}, _mendable(raw), f"has {len(cells)} cells, the header has {len(header)}")
            elif cells:
                values = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
                yield Row(number, values, raw.rstrip("\r\n"))


def _lines(text: IO[str], taken: list[str] | None = None) -> Iterator[str]:
    """The lines of a CSV file, each noted in `taken`; one without an end comes in pieces."""
    while line := text.readline(MAX_LINE):
        if taken is not None:
            taken.append(line)
        yield line


def _mendable(raw: str) -> str:
    return raw.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").rstrip("\r\n")


def parquet_rows(
    path: Path,
    columns: Sequence[str],
    select: Callable[[Any], Any] | None = None,
) -> Iterator[Row]:
    """The rows of a Parquet file, a batch at a time. `select` gives the mask of a batch's rows to keep."""
    number = 1
    try:
        with pq.ParquetFile(path) as file:
            for batch in _batches(file, columns):
                numbers = pa.array(range(number, number + batch.num_rows))
                number += batch.num_rows
                if select is not None:
                    mask = select(batch)
                    batch, numbers = batch.filter(mask), numbers.filter(mask)
                yield from _batch_rows(batch, numbers.to_pylist())
    except (OSError, pa.ArrowException) as error:
        yield Row(number, {}, fault=f"the file is damaged from here on: {error}")


def _batches(file: Any, columns: Sequence[str]) -> Iterator[Any]:
    """A row group at a time: a batch across two would be lost with the second."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(batch_size=_BATCH, row_groups=[group], columns=list(columns))


def _batch_rows(batch: Any, numbers: Sequence[int]) -> Iterator[Row]:
    try:
        found = batch.to_pylist(maps_as_pydicts="strict")
    except (KeyError, ValueError) as error:  # a key twice in a map; text that is not UTF-8
        if len(numbers) == 1:
            yield Row(numbers[0], {}, fault=f"cannot be read: {type(error).__name__}")
            return
        for i, number in enumerate(numbers):  # one bad row must not take its batch along
            yield from _batch_rows(batch.slice(i, 1), [number])
        return
    for number, values in zip(numbers, found, strict=True):
        yield Row(number, {name: _without_nulls(value) for name, value in values.items()})


def _without_nulls(value: object) -> object:
    """A nested value without the nulls that a Parquet struct holds for every field a row does not have."""
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _opened(path: Path) -> io.BufferedReader | gzip.GzipFile:
    return gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")


def _opened_text(path: Path) -> IO[str]:
    """The file as text; bytes that are not UTF-8 come as lone surrogates, so that they cost their row only."""
    return io.TextIOWrapper(_opened(path), encoding="utf-8-sig", errors="surrogateescape", newline="")
