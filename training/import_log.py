"""Logs of other tools as a log that training reads: rows that can be, and why the others cannot."""

import json
from collections.abc import Iterator
from pathlib import Path

from mlflow.entities import Trace

from serving.errors import InputError
from training.logs.files import jsonl_rows
from training.logs.mlflow_traces import TraceReport, rows_of, trace_of
from training.logs.rejects import ReadReport, Refusals, RejectFile, rejects_path
from training.logs.rows import request_of
from training.private_file import private_file
from training.registry import Registry
from training.trace_store import PREFIX, stored_traces


def import_mlflow(source: str, out: Path, home: Path, outcome: str) -> ReadReport:
    """Write the calls of models in MLflow's traces to `out`, for its owner's eyes only: it holds prompts.

    source: a file of JSON lines, each a trace's `to_json()`, or `experiment:NAME` of the tracking store. Rows that
    cannot be read are set aside in the folder `rejects` of `home`. Raises InputError when none can be read.
    """
    if out.suffix != ".jsonl":
        raise InputError(f"must end in .jsonl, not {out.suffix!r}", where=str(out))
    report, found = ReadReport(), TraceReport()
    rejects = rejects_path(home, source.removeprefix(PREFIX))
    with private_file(out) as file, RejectFile(rejects) as kept:
        refusals = Refusals(strict=False, file=kept, report=report)
        for number, trace in _traces(source, home, refusals):
            for row in rows_of(trace, outcome, found):
                try:
                    if isinstance(row, InputError):
                        raise row
                    row = {name: value for name, value in row.items() if value is not None}
                    report.unlabelled += not request_of(row).judged
                except InputError as error:
                    refusals.add(Path(source), number, str(error), trace.to_json())
                    continue
                report.read += 1
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if not report.read:
            raise InputError(f"holds no call of a model that can be read; {out} is left alone\n{report}", where=source)
    report.notes = _notes(found, outcome)
    if report.rejected:
        report.notes.append(f"what could not be read is in {rejects}")
    return report


def _traces(source: str, home: Path, refusals: Refusals) -> Iterator[tuple[int, Trace]]:
    if source.startswith(PREFIX):
        yield from enumerate(stored_traces(Registry(home), source.removeprefix(PREFIX)), 1)
        return
    try:
        for row in jsonl_rows(Path(source)):
            try:
                if row.fault is not None or row.raw is None:
                    raise InputError(row.fault or "is empty")
                yield row.number, trace_of(row.raw.removeprefix("\ufeff"))
            except InputError as error:
                refusals.add(Path(source), row.number, str(error), row.text)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=source) from None


def _notes(found: TraceReport, outcome: str) -> list[str]:
    notes = []
    if found.other_assessments:
        names = ", ".join(f"{name} ({count:,})" for name, count in found.other_assessments.most_common(10))
        notes.append(f"assessments under another name than {outcome!r}, not read: {names}; see --outcome")
    if found.about_several_calls:
        notes.append(
            f"{found.about_several_calls:,} outcomes of a trace with several calls of a model, and of none of them"
        )
    return notes
