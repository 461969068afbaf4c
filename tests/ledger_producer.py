"""A process that writes events from several threads until it is killed: keys go to stdout once they are acknowledged.

python -m tests.ledger_producer LEDGER FIRST LAST THREADS writes the events FIRST to LAST, that one not included; every
other one as started first.
"""

import os
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from serving.ledger.sqlite.store import SqliteLedger
from tests.ledger_events import random_event


def main() -> None:
    """Write, acknowledge, end."""
    path, first, last, threads = Path(sys.argv[1]), *map(int, sys.argv[2:])
    ledger = SqliteLedger(path)
    numbers, lock = iter(range(first, last)), threading.Lock()

    def produce() -> None:
        for number in _taken(numbers, lock):
            event = random_event(f"e{number}", random.Random(number))
            if number % 2 and event.status != "started":
                begun = event.model_copy(update={"status": "started", "usage": None, "cost": None, "saved": {}})
                ledger.record([begun]).result()
            ledger.record([event]).result()
            os.write(1, f"{number}\n".encode())  # one call, so that lines are whole

    producers = [threading.Thread(target=produce) for _ in range(threads)]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join()
    ledger.close()


def _taken(numbers: Iterator[int], lock: threading.Lock) -> Iterator[int]:
    while True:
        with lock:
            number = next(numbers, None)
        if number is None:
            return
        yield number


if __name__ == "__main__":
    main()
