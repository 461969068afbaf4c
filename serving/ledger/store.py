"""What any ledger store can do: SQLite's on one machine, Postgres' on many."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import date, datetime, timedelta
from typing import NamedTuple, Protocol

from serving.api_key import ApiKey
from serving.ledger.budgets import Budget, BudgetStatus, Spender
from serving.ledger.events import Event
from serving.ledger.feedback import Feedback
from serving.ledger.request_log import Forgettable, Forgotten, Logged, LoggedDecision, Matched


class Totals(NamedTuple):
    """Sums over the events of one day, or of all days asked for, and one value of a dimension, None where it has none.

    requests: calls, cache hits and batch lines, however many attempts each took.
    unpriced, unpriced_requests: how many events, and requests, have no known cost; unmetered: how many events no known
    usage; estimated: how many have one that no provider told. saved_pico_usd: by kind of saving, in the order of
    `SAVINGS`. spent_on_saving_pico_usd: the part of cost that judge calls, embeddings and wasted attempts are.
    """

    day: date | None
    value: str | None
    requests: int
    unpriced_requests: int
    events: int
    cost_pico_usd: int
    unpriced: int
    unmetered: int
    estimated: int
    input_tokens: int
    output_tokens: int
    saved_pico_usd: tuple[int, ...]
    spent_on_saving_pico_usd: int


class LedgerStore(Protocol):
    """Durable and shared by the workers of one installation. LedgerError when it cannot be written or read."""

    @property
    def problem(self) -> str | None:
        """Why it cannot be written, as long as it cannot."""
        ...

    def record(self, events: Sequence[Event]) -> "Future[tuple[bool, ...]]":
        """Write all of them or none; done once they would survive a crash. For each, whether it changed anything: a
        key that is settled already does not, nor does one that is started again."""
        ...

    def totals(
        self, dimension: str, since: date, until: date, *, tenant: str | None = None, daily: bool = False
    ) -> Sequence[Totals]:
        """By value of `dimension` (total, kind, model, tier, feature, team, user, api_key), and by day if `daily`; days
        `since` to `until` included, in UTC; of all tenants or of one. Raises ValueError for another dimension."""
        ...

    def events(self, since: datetime, until: datetime, *, tenant: str | None = None) -> Iterator[Event]:
        """The events themselves, oldest first, for exports and checks."""
        ...

    def log(self, decision: LoggedDecision) -> "Future[None]":
        """Keep what a decision saw, within a second: nobody waits for it, and a crash may lose the last ones."""
        ...

    def give(self, feedback: Feedback) -> "Future[Matched | None]":
        """Keep it beside what was given before, and say what it is about, None where nothing of that id is there yet.

        Nothing is ever matched across tenants.
        """
        ...

    def logged(self) -> Iterator[Logged]:
        """Every decision that is kept, oldest first, with the calls and the feedback that came of it."""
        ...

    def forget(self, what: Forgettable, value: str, *, tenant: str | None = None) -> Forgotten:
        """Delete decisions and feedback of a request (by decision, completion or own id), session or user, and take
        user, session and request out of their events, whose money stays. Of one tenant, or of all."""
        ...

    def expire(self, before: datetime) -> int:
        """Delete decisions and feedback that are older, and say how many; events stay."""
        ...

    def set_budget(self, budget: Budget) -> None:
        """Set it, or change the one of the same scope and period. What was spent in the period counts."""
        ...

    def remove_budget(self, budget: Budget) -> bool:
        """Take away that of the same scope and period; whether there was one."""
        ...

    def budgets(self) -> Sequence[Budget]:
        """All of them."""
        ...

    def budget_status(self, now: datetime) -> Sequence[BudgetStatus]:
        """What is spent, reserved and left of each."""
        ...

    def reserve(
        self, id_: str, who: Spender, pico_usd: int, now: datetime, ttl: timedelta
    ) -> "Future[BudgetStatus | None]":
        """Hold an amount against every hard budget of the spender, for a call of that id (a decision's, or the key of
        its event); settled when its event is recorded, gone after `ttl` without one. Holds nothing and gives the budget
        that cannot bear it, if there is one."""
        ...

    def release(self, id_: str, tenant: str) -> "Future[None]":
        """Let go of what is held for a call that is not made."""
        ...

    def keep(self, id_: str, tenant: str) -> "Future[None]":
        """Hold it until the period ends: what the call cost is unknown."""
        ...

    def to_tell(self) -> Sequence[BudgetStatus]:
        """Budgets that an event written by this process has brought to `alert_at`, or to their limit, since it was
        last asked; each once a period and level."""
        ...

    def event(self, key: str, tenant: str) -> Event:
        """The event of a key, which must be there."""
        ...

    def add_key(self, key: ApiKey, digest: bytes) -> None:
        """Keep a new key by its digest. Its id is new."""
        ...

    def revoke_key(self, id_: str, time: datetime) -> bool:
        """From now on it opens nothing; whether there was one that did."""
        ...

    def keys(self) -> Mapping[bytes, ApiKey]:
        """All of them by their digests, revoked ones included, oldest first."""
        ...

    def close(self) -> None:
        """Write what is waiting and let go."""
        ...
