"""What a worker does beside answering: it follows what was promoted or set, tells of it, and clears up."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from serving.errors import InputError, LedgerError
from serving.http.auth import KeyRing
from serving.http.metrics import Metrics
from serving.ledger.access import LedgerAccess
from serving.routing.policy import Policy
from serving.routing.promoted import PromotedRouter
from serving.spending import Spending

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0
_EXPIRE_EVERY_S: Final = 3600.0


class Upkeep:
    """Of one worker. left_out: the models that are not asked. kept: for how long decisions and feedback are."""

    def __init__(
        self,
        promoted: PromotedRouter,
        policy: Policy,
        metrics: Metrics,
        ledger: LedgerAccess,
        keys: KeyRing,
        spending: Spending,
        left_out: Callable[[], Iterable[str]],
        kept: timedelta,
    ) -> None:
        self._promoted = promoted
        self._policy = policy
        self._metrics = metrics
        self._ledger = ledger
        self._keys = keys
        self._spending = spending
        self._left_out = left_out
        self._kept = kept

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """From when all is loaded that answers need, until the end of the block."""
        self._promoted.refresh()
        _expect(self._promoted, self._policy, self._metrics)
        await _open(self._ledger)
        with contextlib.suppress(LedgerError):  # it is tried again
            await asyncio.to_thread(self._keys.refresh)
            await asyncio.to_thread(self._spending.refresh)  # hard budgets hold from the first call on
        _settle_garbage_collection()
        tasks = [asyncio.create_task(work) for work in (self._watch(), self._follow(), self._tell(), self._expire())]
        yield
        for task in tasks:
            task.cancel()

    async def _watch(self) -> None:
        """Take over promotions: a new bundle is verified in a thread while the old one answers. Say what is wrong."""
        left_out: set[str] = set()
        while True:
            left_out = _tell_left_out(set(self._left_out()), left_out, self._metrics)
            self._metrics.degraded.set(self._promoted.problem is not None)
            self._metrics.ledger_degraded.set(self._ledger.problem is not None)
            await asyncio.sleep(_LOOK_EVERY_S)
            if self._ledger.opened is None:
                await _open(self._ledger)
            try:
                taken = await asyncio.to_thread(self._promoted.refresh)
                if taken:
                    _expect(self._promoted, self._policy, self._metrics)
            except Exception:
                logger.exception("looking for a promotion failed")
                self._promoted.problem, taken = "looking for a promotion failed; the log says why", False
            if taken is not None:
                self._metrics.reloads.labels(outcome="taken" if taken else "refused").inc()
                _settle_garbage_collection()

    async def _follow(self) -> None:
        """Take over keys and budgets that were set."""
        while True:
            try:
                await asyncio.to_thread(self._keys.refresh)
                await asyncio.to_thread(self._spending.refresh)
            except LedgerError as error:  # the keys and budgets known so far hold
                logger.error("keys and budgets could not be read: %s", error)
            except Exception:
                logger.exception("following keys and budgets failed; it is tried again")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _tell(self) -> None:
        """Tell of budgets that are spent, while keys and budgets are followed: a webhook may take its time."""
        while True:
            try:
                await asyncio.to_thread(self._spending.tell)
            except Exception:
                logger.exception("telling of budgets failed; it is tried again")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _expire(self) -> None:
        """Delete old decisions and feedback now and then; of several workers, the first one finds something to do."""
        while True:
            if self._ledger.opened is None:
                await asyncio.sleep(_LOOK_EVERY_S)
                continue
            try:
                await asyncio.to_thread(self._ledger.opened.expire, datetime.now(UTC) - self._kept)
            except LedgerError as error:
                logger.error("old decisions could not be deleted: %s", error)
            except Exception:
                logger.exception("deleting old decisions failed; it is tried again")
            await asyncio.sleep(_EXPIRE_EVERY_S)


def _tell_left_out(now: set[str], before: set[str], metrics: Metrics) -> set[str]:
    """Which models are left out; gives them."""
    for model in now - before:
        logger.warning("calls to %s fail; it is left out", model)
    for model in before - now:
        logger.warning("%s answers again", model)
    for model in now ^ before:
        metrics.left_out.labels(model).set(model in now)
    return now


async def _open(ledger: LedgerAccess) -> None:
    with contextlib.suppress(LedgerError):  # it was logged, /status says so, and it is tried again
        await asyncio.to_thread(ledger.store)


def _expect(promoted: PromotedRouter, policy: Policy, metrics: Metrics) -> None:
    with contextlib.suppress(InputError):  # a router that cannot follow the policy serves none of it to compare
        metrics.expect(promoted.router.expected(policy))


def _settle_garbage_collection() -> None:
    """Keep what is loaded out of the collector's walks, which otherwise stop a worker for tens of milliseconds.

    Thresholds: fewer walks than CPython's 700, 10, 10, measured as p99 106 → 5 ms at 16 requests at once, when BentoML
    still left a timer for each.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
