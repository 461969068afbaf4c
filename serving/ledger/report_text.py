"""A report as JSON, as text and as CSV. Money is written out in full: 0.000000000007, and no float on the way."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final

from serving.ledger.report import Line, Report, usd

_MARK: Final = "\x00usd:"  # no name holds a NUL: see `Name`
_MARKED: Final = re.compile(rf'"{json.dumps(_MARK)[1:-1].replace(chr(92), chr(92) * 2)}(-?[0-9.]+)"')


def report_json(report: Report) -> str:
    """The report as one JSON object. Amounts are numbers with all their digits: parts add up to the total exactly."""
    total, savings = report.total, report.savings
    body: dict[str, object] = {
        "object": "ledger.report",
        "period_days": report.days,
        "since": report.since.isoformat(),
        "until": report.until.isoformat(),
        "total_cost_usd": usd(total.cost_pico_usd),
        "total_requests": total.requests,
        "avg_cost_per_request": _maybe(report.cost_per_request_pico_usd),
        "input_tokens": total.input_tokens,
        "output_tokens": total.output_tokens,
        "daily": _lines("day", report.daily),
        "top_features": _lines("feature", report.top_features),
        "top_teams": _lines("team", report.top_teams),
        "by_model": _lines("model", report.by_model),
        "by_tier": _lines("tier", report.by_tier),
        "projected_monthly_cost": _maybe(report.projected_month_pico_usd),
        "savings": {
            **{f"{kind}_usd": usd(amount) for kind, amount in savings.by.items()},
            "spent_on_saving_usd": usd(savings.spent_pico_usd),
            "net_usd": usd(savings.net_pico_usd),
        },
        "unknown": {
            "events": total.events,
            "unpriced": total.unpriced,
            "unmetered": total.unmetered,
            "estimated": total.estimated,
            "unpriced_requests": total.unpriced_requests,
        },
    }
    if report.by is not None:
        body["by"] = {"dimension": report.by[0], "lines": _lines(report.by[0], report.by[1])}
    return exact_json(body)


def exact_json(body: object) -> str:
    """JSON with Decimals as numbers of all their digits, which `json` cannot write."""
    text = json.dumps(body, default=lambda value: f"{_MARK}{value:f}", ensure_ascii=False, allow_nan=False)
    return _MARKED.sub(r"\1", text)


def report_csv(report: Report) -> str:
    """A line for each day, or for each value of what was asked for."""
    name, lines = ("day", report.daily) if report.by is None else report.by
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([name, "cost_usd", "requests", "unpriced_events", "input_tokens", "output_tokens"])
    writer.writerows(
        [_safe(line.name), f"{usd(line.cost_pico_usd):f}", line.requests, line.unpriced, line.input_tokens,
         line.output_tokens] for line in lines
    )  # fmt: skip
    return out.getvalue()


def report_text(report: Report) -> str:
    """What `tierwise report` prints."""
    return "\n".join(_text(report)) + "\n"


def _text(report: Report) -> Iterator[str]:
    total, savings = report.total, report.savings
    yield f"{report.since} to {report.until}, UTC"
    if total.events == 0:
        yield "nothing was recorded"
        return
    plural = "" if total.requests == 1 else "s"
    yield f"spent {_shown(total.cost_pico_usd)} on {total.requests:,} request{plural}" + _average(report)
    if total.unpriced or total.unmetered:
        yield (
            f"unknown, and in no sum: the cost of {total.unpriced:,} of {total.events:,} events, "
            f"the tokens of {total.unmetered:,}"
        )
    if total.estimated:
        yield f"estimated, not told by a provider: the tokens of {total.estimated:,} events"
    if report.projected_month_pico_usd is not None:
        yield f"a month of 30 days like these: {_shown(report.projected_month_pico_usd)}"
    yield (
        f"saved {_shown(savings.net_pico_usd)} net: "
        + ", ".join(f"{kind} {_shown(amount)}" for kind, amount in savings.by.items() if amount or kind == "routing")
        + f"; less {_shown(savings.spent_pico_usd)} spent on saving"
    )
    tables = [("day", report.daily), ("tier", report.by_tier), ("model", report.by_model),
              ("feature", report.top_features), ("team", report.top_teams)]  # fmt: skip
    if report.by is not None:
        tables = [report.by]
    for name, lines in tables:
        yield ""
        yield from _table(name, lines, total.cost_pico_usd)


def _table(name: str, lines: Sequence[Line], whole: int) -> Iterator[str]:
    rows = [(name, "cost", "share", "requests", "unpriced")]
    for line in lines:
        unknown = bool(line.unpriced) and not line.cost_pico_usd
        share = f"{100 * line.cost_pico_usd / whole:.1f}%" if whole and not unknown else "–"
        unpriced = f"{line.unpriced:,}" if line.unpriced else ""
        cost = "unknown" if unknown else _shown(line.cost_pico_usd)
        rows.append((line.name or "–", cost, share, f"{line.requests:,}", unpriced))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "  ".join([row[0].ljust(widths[0]), *rest]).rstrip()


def _average(report: Report) -> str:
    average = report.cost_per_request_pico_usd
    return "" if average is None else f", {_shown(average)} each"


def _shown(pico_usd: int | Decimal) -> str:
    """Dollars as people read them: cents for much, four digits that say something for little."""
    amount = usd(pico_usd)
    if abs(amount) >= 1 or amount == 0:
        return f"${amount:,.2f}" if amount >= 0 else f"-${-amount:,.2f}"
    return f"{'-' if amount < 0 else ''}${abs(amount):.{3 - abs(amount).adjusted()}f}"


def _lines(name: str, lines: Iterable[Line]) -> list[dict[str, object]]:
    return [
        {
            name: line.name,
            "cost_usd": usd(line.cost_pico_usd),
            "requests": line.requests,
            "unpriced": line.unpriced,
            "input_tokens": line.input_tokens,
            "output_tokens": line.output_tokens,
        }
        for line in lines
    ]


def _maybe(pico_usd: Decimal | None) -> Decimal | None:
    return None if pico_usd is None else usd(pico_usd)


def _safe(name: str | None) -> str:
    """A name that no spreadsheet takes for a formula."""
    return "" if name is None else f"'{name}" if name[0] in "=+-@\t\r" else name
