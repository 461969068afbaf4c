"""Made-up events of a ledger."""

import random
from datetime import UTC, datetime, timedelta

from serving.ledger.events import Cost, Event, Kind
from serving.ledger.usage import Usage

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def event(key: str = "k", **changes: object) -> Event:
    """A call that went well, with changes."""
    values: dict[str, object] = {
        "key": key, "kind": "call", "status": "ok", "time": NOON, "team": "search", "feature": "summary",
        "user": "ann", "model": "small-1", "tier": "economy", "latency_ms": 120,
        "usage": Usage(input_tokens=100, cached_input_tokens=40, output_tokens=20),
        "cost": Cost(pico_usd=1_000_000_007, source="list", dated="2026-01-01"),
    }  # fmt: skip
    return Event.model_validate(values | changes)


def random_event(key: str, rng: random.Random) -> Event:
    """Any kind of event, of a few tenants, teams and days, some without a price or usage."""
    kinds: list[Kind] = ["call", "call", "call", "cache_hit", "judge", "embedding", "batch_line"]
    kind = rng.choice(kinds)
    known = rng.random() < 0.9
    return event(
        key,
        kind=kind,
        status=rng.choice(["ok", "ok", "error", "started"]),
        time=NOON + timedelta(days=rng.randrange(3), seconds=rng.randrange(86_400)),
        tenant=rng.choice(["acme", "globex"]),
        team=rng.choice(["search", "support", None]),
        user=f"u{rng.randrange(20)}",
        model=rng.choice(["small-1", "large-1"]),
        tier=rng.choice(["economy", "premium"]),
        usage=Usage(input_tokens=rng.randrange(5000), output_tokens=rng.randrange(800)) if known else None,
        cost=Cost(pico_usd=rng.randrange(3 * 10**12), source="list") if known and kind != "cache_hit" else None,
        wasted=rng.random() < 0.1,
        saved={"routing": rng.randrange(-(10**11), 10**12)} if rng.random() < 0.5 else {},
    )
