"""The latest of what was computed, by key; the least recently used goes first."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Latest(Generic[Value]):
    """At most `capacity` values. Safe to share between threads; two that miss the same key at once both compute it."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity!r}")
        self.capacity = capacity
        self._known: OrderedDict[bytes, Value] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: bytes) -> Value | None:
        """The value, which is then the most recently used; None when it is not at hand."""
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
            return known

    def put(self, key: bytes, value: Value) -> None:
        """Remember it."""
        with self._lock:
            self._known[key] = value
            if len(self._known) > self.capacity:
                self._known.popitem(last=False)
