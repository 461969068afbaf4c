"""One line of JSON a request: who answered, when, at which cost. No word of what was sent, and no name of a person."""

import logging
import sys
from datetime import UTC, datetime
from typing import Final

from pydantic_core import to_json

from serving.http.followed import Followed
from serving.ledger.events import Event
from serving.ledger.report import usd

_lines: Final = logging.getLogger("tierwise.requests")


def write_lines() -> None:
    """Send the lines to stderr, each alone: for the process of a service."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _lines.handlers, _lines.propagate, _lines.disabled = [handler], False, False
    _lines.setLevel(logging.INFO)


def tell_line(of: Followed) -> None:
    """Write the line of a request; what is not known or does not apply is left out."""
    _lines.info("%s", to_json({name: value for name, value in _line(of).items() if value is not None}).decode())


def _line(of: Followed) -> dict[str, object]:
    decision, last = of.decision, of.events[-1] if of.events else None
    return {
        "time": datetime.fromtimestamp(of.began_ns / 1e9, UTC).isoformat(timespec="milliseconds"),
        "endpoint": of.endpoint,
        "status": of.status,
        "latency_ms": round(1e3 * of.seconds, 1),
        "first_byte_ms": None if of.first_byte_s is None else round(1e3 * of.first_byte_s, 1),
        "tenant": None if of.key is None else of.key.tenant,
        "api_key": None if of.key is None else of.key.id,
        "decision_id": None if decision is None else decision.id,
        "router": None if decision is None else decision.router,
        "reason": None if decision is None else decision.reason,
        "tier": decision.tier if last is None and decision is not None else None if last is None else last.tier,
        **({} if last is None else _attempts(of.events, last)),
    }


def _attempts(events: list[Event], last: Event) -> dict[str, object]:
    """Tokens and cost are those of all attempts; unknown where one of them is."""
    usages, costs = [event.usage for event in events], [event.cost for event in events]
    known = [usage for usage in usages if usage is not None]
    return {
        "model": last.model or last.model_asked,
        "completion_id": last.completion_id,
        "attempts": len(events),
        "input_tokens": _sum([usage.input_tokens for usage in known], len(events)),
        "output_tokens": _sum([usage.output_tokens for usage in known], len(events)),
        "cost_usd": None if None in costs else f"{usd(sum(cost.pico_usd for cost in costs if cost)):f}",
        "outcome": last.status,
        "error": last.error,
    }


def _sum(counts: list[int | None], of: int) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == of else None
