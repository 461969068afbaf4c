"""What a part of the report on quality is made of: a table, bars that are met or not, and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from training.evaluation.intervals import Estimate


@dataclass(frozen=True)
class Bar:
    """What the figures have to reach. met: None where it is only reported."""

    what: str
    found: str
    wanted: str
    met: bool | None


@dataclass(frozen=True)
class Section:
    """text: a paragraph, broken anywhere. header, rows: a table. figures: by the stem of their file."""

    title: str
    text: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    bars: Sequence[Bar] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def markdown(self, images: str) -> str:
        """The section as Markdown, its pictures from the folder `images`."""
        lines = [
            f"## {self.title}",
            "",
            " ".join(self.text.split()),
            "",
            _row(self.header),
            _row(["---"] * len(self.header)),
        ]
        lines += [_row(row) for row in self.rows]
        for name in self.figures:
            lines += ["", f"![{self.title}]({images}/{name}.png)"]
        return "\n".join(lines) + "\n"


def bars_markdown(bars: Sequence[Bar]) -> str:
    """All bars in one table."""
    words = {True: "yes", False: "**no**", None: "reported"}
    lines = [_row(("bar", "found", "wanted", "met")), _row(["---"] * 4)]
    lines += [_row((bar.what, bar.found, bar.wanted, words[bar.met])) for bar in bars]
    return "\n".join(lines) + "\n"


def number(value: float | None, digits: int = 3) -> str:
    """.655, in place of 0.655; a dash for what is not defined."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def estimate(found: Estimate, digits: int = 3) -> str:
    """A value and the ends of its interval."""
    if found.interval is None:
        return number(found.value, digits)
    low, high = (number(end, digits) for end in found.interval)
    return f"{number(found.value, digits)} ({low} to {high})"


def mean_of(found: Sequence[Estimate]) -> Estimate:
    """The mean of values, and of the ends of their intervals: of draws that overlap, so no narrower than one's."""
    ends = [estimate.interval for estimate in found if estimate.interval is not None]
    values = [estimate.value for estimate in found if estimate.value is not None]
    low, high = np.mean(ends, axis=0) if ends else (np.nan, np.nan)
    return Estimate(float(np.mean(values)), (float(low), float(high)) if ends else None)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
