"""What a benchmark finds: a named value, its unit, and the bar it has to keep."""

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured value. bar: the most it may be, or the least when `at_least`; None when there is none."""

    benchmark: str
    figure: str
    value: float
    unit: str
    bar: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the bar is kept; None without a bar. A value that is not a number keeps none."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def json_line(self) -> str:
        """As one JSON object: benchmark, figure, value, unit, bar, met."""
        line = {"benchmark": self.benchmark, "figure": self.figure, "value": round(self.value, 4), "unit": self.unit}
        return json.dumps(line | {"bar": self.bar, "met": self.met})


def table(figures: Sequence[Figure]) -> str:
    """The figures as text, one a line, missed bars marked."""
    rows = [("benchmark", "figure", "value", "bar", "")]
    for f in figures:
        bar = "" if f.bar is None else f"{'≥' if f.at_least else '≤'} {f.bar:g} {f.unit}"
        mark = {None: "", True: "met", False: "MISSED"}[f.met]
        value = f"{f.value:,.0f}" if abs(f.value) >= 1000 else f"{f.value:.4g}"
        rows.append((f.benchmark, f.figure, f"{value} {f.unit}", bar, mark))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
