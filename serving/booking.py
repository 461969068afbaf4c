"""Attempts at a call in the ledger: each is written as started before it goes out, and settled when it is over."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from serving.attribution import Attribution
from serving.errors import InputError, LedgerError, UpstreamError
from serving.ledger.access import LedgerAccess
from serving.ledger.events import Cost, Event, Status
from serving.ledger.priced import Priced, price_call
from serving.ledger.prices import PriceBook
from serving.ledger.report import usd
from serving.ledger.reported import read_usage
from serving.ledger.usage import Usage, with_estimates
from serving.token_estimate import estimated_tokens
from serving.upstream.events import Seen

logger = logging.getLogger(__name__)

_REFUSED: Final = Cost(pico_usd=0, source="refused")
"""Providers bill no call that they answered with an error, nor one that did not reach them."""
_NOTHING: Final = Usage(input_tokens=0, output_tokens=0)
_UNBILLED: Final = ("rate_limited", "status", "unreachable")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one model. sent: the text that went out, to count where no usage is told. embeds: whether embeddings
    are asked for. top: the ladder's last model, of a call that a decision chose. held: the id by which budgets hold
    something for a call without a decision."""

    started: Event
    began_s: float
    sent: Callable[[], str]
    embeds: bool
    top: str | None
    held: str | None


class Booking:
    """Writes attempts down. on_event: is told of each that is settled."""

    def __init__(self, access: LedgerAccess, prices: PriceBook, on_event: Callable[[Event], None]) -> None:
        self._access = access
        self._prices = prices
        self._on_event = on_event

    async def begin(
        self,
        key: str,
        model: str,
        *,
        tier: str | None,
        provider: str | None,
        who: Attribution,
        decision_id: str | None,
        request_id: str | None,
        sent: Callable[[], str],
        embeds: bool,
        top: str | None,
        held: str | None,
    ) -> Attempt:
        """Write it as started, which is on disk when this is done. Parameters are those of `Event` and `Attempt`.

        Raises LedgerError: a call that cannot be written down is not made.
        """
        started = Event(
            key=key, kind="call", status="started", time=datetime.now(UTC), request_id=request_id,
            decision_id=decision_id, tenant=who.tenant, api_key=who.api_key,
            team=who.team, feature=who.feature, user=who.user, session_id=who.session_id,
            model_asked=model, provider=provider, tier=tier,
        )  # fmt: skip
        attempt = Attempt(started, time.monotonic(), sent, embeds, top, held)
        store = await self._access.ready()
        try:
            await asyncio.wrap_future(store.record([started]))
        except asyncio.CancelledError:  # it is written all the same, and nothing went out
            self._settle(attempt, "cancelled", usage=_NOTHING, cost=_REFUSED)
            raise
        return attempt

    def expected_usd(self, model: str, provider: str | None, text: str, output_tokens: int) -> Decimal | None:
        """What a call with such an answer is expected to cost; None without a price."""
        usage = Usage(input_tokens=estimated_tokens(text), output_tokens=output_tokens)
        cost = self._prices.cost(model, usage, datetime.now(UTC), provider=provider)
        return None if cost is None else usd(cost.pico_usd)

    def refused(self, attempt: Attempt, error: UpstreamError, *, again: bool) -> "Settled":
        """It gave no answer. again: another attempt follows, so that nobody sees this one."""
        billed = error.code not in _UNBILLED
        return self._settle(
            attempt, "error", wasted=again, error=f"{error.code}_{error.status}" if error.status else error.code,
            usage=None if billed else _NOTHING, cost=None if billed else _REFUSED,
        )  # fmt: skip

    def cancelled(self, attempt: Attempt, *, wasted: bool = False) -> None:
        """The client went before anything came; what the provider made of it meanwhile is unknown."""
        self._settle(attempt, "cancelled", wasted=wasted)

    def answered(
        self,
        attempt: Attempt,
        seen: Seen,
        status: Status = "ok",
        error: str | None = None,
        *,
        wasted: bool = False,
        came_s: float | None = None,
    ) -> "Settled":
        """What came of it, whole or in part; without usage, as many tokens as what was sent and seen is about.

        wasted: another answer was given in its place, so that it saved nothing. came_s: when it was there, of the
        monotonic clock; None is now.
        """
        told = _usage(seen.usage)
        if attempt.embeds and told is not None and told.output_tokens is None:
            told = told.model_copy(update={"output_tokens": 0})  # of embeddings nothing comes out
        usage = with_estimates(told, attempt.sent, "".join(seen.text))
        begun = attempt.started
        names = list(dict.fromkeys(name for name in (seen.model, begun.model_asked) if name is not None))
        offers = (
            price_call(
                self._prices, name, usage, begun.time, provider=begun.provider, processing=seen.service_tier,
                instead_of=attempt.top,
            )
            for name in names  # a provider may answer under a name that no list has
        )  # fmt: skip
        priced = next((offer for offer in offers if offer.cost is not None), Priced(None, {}))
        return self._settle(
            attempt, status, model=names[0], usage=usage, usage_estimated=usage != told, cost=priced.cost, error=error,
            saved=priced.saved if status == "ok" and not wasted else {}, completion_id=seen.id, wasted=wasted,
            processing=seen.service_tier,
            **({} if came_s is None else {"latency_ms": round(1e3 * (came_s - attempt.began_s))}),
        )  # fmt: skip

    def failed(self, attempt: Attempt, status: int, *, wasted: bool = False) -> "Settled":
        """The provider answered that the request is wrong."""
        return self._settle(attempt, "error", error=f"status_{status}", usage=_NOTHING, cost=_REFUSED, wasted=wasted)

    def _settle(self, attempt: Attempt, status: Status, **changes: Any) -> "Settled":
        latency_ms = round(1e3 * (time.monotonic() - attempt.began_s))
        event = attempt.started.model_copy(update={"status": status, "latency_ms": latency_ms, **changes})
        self._on_event(event)
        if (store := self._access.opened) is None:
            logger.error("an attempt could not be settled: the ledger is closed")
            return Settled(event.cost, None)
        written = store.record([event])
        if attempt.held is not None and not event.wasted:
            (store.keep if event.cost is None else store.release)(attempt.held, event.tenant)
        return Settled(event.cost, written)


@dataclass(frozen=True, slots=True)
class Settled:
    """What an answer cost; and when that is on disk."""

    cost: Cost | None
    _written: "Future[tuple[bool, ...]] | None"

    async def on_disk(self) -> None:
        """Wait for it. An answer that is there is given, even where it could not be written: the ledger says so."""
        if self._written is None:
            return
        try:
            await asyncio.wrap_future(self._written)
        except LedgerError as error:
            logger.error("an answer was given that could not be written down: %s", error)


def _usage(told: Mapping[str, Any] | None) -> Usage | None:
    """None where it makes no sense: it is then unknown rather than the end of an answer."""
    try:
        return read_usage(told)
    except InputError as error:
        logger.warning("a provider's usage cannot be read: %s", error)
        return None
