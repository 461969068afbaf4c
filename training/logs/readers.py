"""How is a log read, one request at a time, when some of its rows cannot be?"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from serving.errors import InputError
from training.logs.files import Row, columns_of, csv_rows, format_of, jsonl_rows, parquet_rows
from training.logs.ladder import Ladder
from training.logs.outcome_table import is_outcome_table, table_requests
from training.logs.record import LoggedRequest
from training.logs.rejects import ReadReport, Refusals, RejectFile
from training.logs.rows import FIELDS, check_fields, request_of

_LINE_BITS = 40


def read_log(
    paths: Sequence[Path],
    *,
    strict: bool = False,
    rejects: RejectFile | None = None,
    ladder: Ladder | None = None,
    report: ReadReport | None = None,
) -> Iterator[LoggedRequest]:
    """The requests of logs and outcome tables, streamed; docs/log-format.md says what the files hold.

    A row that cannot be read goes to `rejects` and into `report` and the reading goes on; with `strict` it
    raises InputError. With a `ladder`, the tier of an answer is the one its model belongs to, or what the
    row says if its model is not on the ladder. An outcome table needs a ladder, and gives its models only.
    Raises InputError before the first row if a file cannot be opened, is of no known format or has a column
    that no log has, and during the reading if a file gives no request at all.
    """
    if not paths:
        raise InputError("no log was given; name at least one file")
    columns = [_checked_columns(path, ladder) for path in paths]
    report = ReadReport() if report is None else report
    return _unique(paths, columns, ladder, Refusals(strict, rejects, report))


def _checked_columns(path: Path, ladder: Ladder | None) -> tuple[str, ...] | None:
    columns = columns_of(path)
    if columns is None:
        return None
    if not is_outcome_table(columns):
        try:
            check_fields(columns, FIELDS)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    elif ladder is None:
        raise InputError(f"{path}: is an outcome table; give a ladder file (--ladder) with its models")
    return columns


def _unique(
    paths: Sequence[Path],
    columns: Sequence[tuple[str, ...] | None],
    ladder: Ladder | None,
    refusals: Refusals,
) -> Iterator[LoggedRequest]:
    report = refusals.report
    first_seen: dict[bytes, int] = {}  # digest of an id: file and line in one number, for tens of millions of them
    for index, (path, names) in enumerate(zip(paths, columns, strict=True)):
        read_before, rejected_before = report.read, report.rejected
        for row, request in _requests(path, names, ladder, refusals):
            here = index << _LINE_BITS | row.number
            first = first_seen.setdefault(blake2b(request.id.encode(), digest_size=16).digest(), here)
            if first != here:
                file, line = paths[first >> _LINE_BITS], first & ((1 << _LINE_BITS) - 1)
                refusals.add(path, row.number, f"id: is that of {file}, line {line}, too", row.text)
                continue
            report.read += 1
            report.unlabelled += not request.judged
            yield request
        if report.read == read_before:
            rejected = report.rejected - rejected_before
            example = next((f"; {reject}" for reject in report.first if reject.file == str(path)), "")
            raise InputError(f"{path}: holds no request that can be read; {rejected:,} rejected{example}")


def _requests(
    path: Path, columns: tuple[str, ...] | None, ladder: Ladder | None, refusals: Refusals
) -> Iterator[tuple[Row, LoggedRequest]]:
    if columns is not None and ladder is not None and is_outcome_table(columns):
        yield from table_requests(path, columns, ladder, refusals)
        return
    for row in _rows(path, columns or ()):
        try:
            if row.fault is not None:
                raise InputError(row.fault)
            request = request_of(row.values)
        except InputError as error:
            refusals.add(path, row.number, str(error), row.text)
            continue
        yield row, request if ladder is None else _placed(request, ladder, refusals.report)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    kind = format_of(path)
    if kind == "parquet":
        return parquet_rows(path, columns)
    return csv_rows(path) if kind == "csv" else jsonl_rows(path)


def _placed(request: LoggedRequest, ladder: Ladder, report: ReadReport) -> LoggedRequest:
    """The request with the tier of each answer that the ladder gives it."""
    outcomes = []
    for outcome in request.outcomes:
        tier = ladder.tier_of(outcome.model) or outcome.tier
        if tier not in ladder.names:
            report.off_ladder[outcome.model or str(tier)] += 1
        outcomes.append(outcome if tier == outcome.tier else outcome.model_copy(update={"tier": tier}))
    return request.model_copy(update={"outcomes": tuple(outcomes)})
