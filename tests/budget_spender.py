"""A process whose threads spend from one hard budget until it is used up: prints what they spent, in pico-USD.

Says that it is ready, and begins when it is sent a line.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from serving.ledger.budgets import Spender
from serving.ledger.events import Cost
from serving.ledger.sqlite.store import SqliteLedger
from tests.ledger_events import event

TEAM = Spender(team="search")


def spend(ledger: SqliteLedger, name: str, pico_usd: int) -> int:
    """Reserve, call, record, again and again; one call in three costs less than was held for it."""
    spent = 0
    for i in range(10_000):
        key, now = f"{name}-{i}", datetime.now(UTC)
        if ledger.reserve(key, TEAM, pico_usd, now, timedelta(minutes=1)).result() is not None:
            return spent
        paid = pico_usd if i % 3 else pico_usd // 2
        ledger.record([event(key, time=now, team="search", cost=Cost(pico_usd=paid, source="test"))]).result()
        spent += paid
    raise AssertionError("the budget never ended")


def main() -> None:
    """Arguments: the ledger, a name of the process, threads, pico-USD of a call."""
    path, name, threads, pico_usd = sys.argv[1:]
    ledger = SqliteLedger(Path(path))
    print("ready", flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(int(threads)) as pool:
        found = pool.map(lambda i: spend(ledger, f"{name}-{i}", int(pico_usd)), range(int(threads)))
        print(sum(found))
    ledger.close()


if __name__ == "__main__":
    main()
