"""Which rows of a log could not be read, why, and where are they kept to be mended?"""

import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from serving.errors import InputError

_SHOWN: Final = 5  # rejects a report quotes; the others are in the file
_REASONS: Final = 100  # kinds of reason counted apart, so that a file of nonsense cannot fill the memory


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was left out. `line` is the row's number in a Parquet file; `row` is the row as found."""

    file: str
    line: int
    reason: str
    row: str | None

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


class RejectFile:
    """Rejects as JSON lines. The file is made at the first, for its owner's eyes only: it holds prompts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def write(self, reject: Reject) -> None:
        if self._file is None:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.fchmod(handle, 0o600)  # a file left by an earlier run keeps its mode otherwise
            self._file = os.fdopen(handle, "w", encoding="utf-8")
        entry = {"file": reject.file, "line": reject.line, "reason": reject.reason, "row": reject.row}
        self._file.write(json.dumps(entry) + "\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def rejects_path(home: Path, log: str) -> Path:
    """Where the rejects of a log go by default, in a folder that is made: not beside the log, which may be read-only,
    or where everybody can read."""
    path = home / "rejects" / f"{Path(log).name.split('.')[0]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@dataclass
class ReadReport:
    """What a reading gave. It grows while the log is read and is complete when the reading ends."""

    read: int = 0
    rejected: int = 0
    unlabelled: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    first: list[Reject] = field(default_factory=list)
    off_ladder: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def reject(self, reject: Reject) -> None:
        self.rejected += 1
        kind = re.sub(r"\d+", "N", reject.reason)  # alike but for numbers is one reason, told by its first
        if kind not in self.reasons and len(self.reasons) >= _REASONS:
            kind = "other reasons"
        self.reasons[kind] += 1
        self.examples.setdefault(kind, kind if kind == "other reasons" else reject.reason)
        if len(self.first) < _SHOWN:
            self.first.append(Reject(reject.file, reject.line, reject.reason, None))

    def __str__(self) -> str:
        lines = [f"{self.read:,} read, {self.rejected:,} rejected, {self.unlabelled:,} without an outcome"]
        lines += [f"  {count:,} × {self.examples[kind]}" for kind, count in self.reasons.most_common()]
        lines += [f"  {reject}" for reject in self.first]
        if self.rejected > len(self.first):
            lines.append(f"  … and {self.rejected - len(self.first):,} more")
        if self.off_ladder:
            names = ", ".join(f"{name} ({count:,})" for name, count in self.off_ladder.most_common(10))
            more = f" and {len(self.off_ladder) - 10} more" if len(self.off_ladder) > 10 else ""
            lines.append(f"  answers of models that are not on the ladder: {names}{more}")
        return "\n".join(lines + [f"  {note}" for note in self.notes])


@dataclass(frozen=True)
class Refusals:
    """What becomes of a row that cannot be read: counted, kept, or with `strict` the end of the run."""

    strict: bool
    file: RejectFile | None
    report: ReadReport

    def add(self, path: Path, line: int, reason: str, row: str | None) -> None:
        reject = Reject(str(path), line, reason, row)
        if self.strict:
            raise InputError(str(reject))
        self.report.reject(reject)
        if self.file is not None:
            self.file.write(reject)
