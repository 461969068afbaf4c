"""The ledger over HTTP: calls made elsewhere go in, reports come out."""

import asyncio
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.api_key import ApiKey, who_calls
from serving.attribution import read_name
from serving.errors import AccessError, InputError
from serving.http.auth import key_of
from serving.http.body import as_object, read_json
from serving.ledger.access import LedgerAccess
from serving.ledger.events import Event
from serving.ledger.prices import PriceBook
from serving.ledger.recorded import read_call
from serving.ledger.report import DIMENSIONS, MOST_DAYS, Dimension, Report, make_report, usd
from serving.ledger.report_text import exact_json, report_csv, report_json
from serving.settings import Settings
from serving.tiers import Tier

_JSON: Final = "application/json"
_DAYS: Final = 7
_KEY: Final = re.compile(r"[!-~]{1,256}")


class LedgerResource:
    """Handlers of `/ledger/…`. ladder: the tiers in service at the moment. on_event: is told of each that is new."""

    def __init__(
        self,
        access: LedgerAccess,
        settings: Settings,
        prices: PriceBook,
        on_event: Callable[[Event], None],
        ladder: Callable[[], Sequence[Tier]],
    ) -> None:
        self._access = access
        self._limit = settings.max_request_bytes
        self._prices = prices
        self._on_event = on_event
        self._ladder = ladder

    def routes(self) -> list[Route]:
        """The routes of this resource."""
        return [
            Route("/ledger/events", self.record, methods=["POST"]),
            Route("/ledger/report", self.report, methods=["GET"]),
        ]

    async def record(self, request: Request) -> Response:
        """Answered once the event would survive a crash."""
        payload = as_object(await read_json(request, self._limit), where="body", holding="a `model`")
        key = _key(request.headers.get("idempotency-key"))
        event = read_call(payload, self._prices, self._ladder(), key, who_calls(key_of(request)))
        store = await self._access.ready()
        (recorded,) = await asyncio.wrap_future(store.record([event]))
        if recorded:
            self._on_event(event)
        else:
            event = await asyncio.to_thread(store.event, event.key, event.tenant)
        body = {
            "object": "ledger.event",
            "key": event.key,
            "recorded": recorded,
            "tier": event.tier,
            "unknown": _unknown(event),
            "cost_usd": None if event.cost is None else usd(event.cost.pico_usd),
            "price": None if event.cost is None else {"source": event.cost.source, "dated": event.cost.dated},
            "saved_usd": {kind: usd(amount) for kind, amount in event.saved.items()},
        }
        return Response(exact_json(body), media_type=_JSON)

    async def report(self, request: Request) -> Response:
        """The report, as JSON or, asked for by `format=csv`, as CSV."""
        asked = dict(request.query_params)
        days = _days(asked.pop("days", str(_DAYS)))
        by, form = _dimension(asked.pop("by", None)), asked.pop("format", "json")
        if form not in ("json", "csv"):
            raise InputError(f"must be json or csv, not {form[:40]!r}", where="format")
        tenant = _tenant(asked.pop("tenant", None), key_of(request))
        if asked:
            raise InputError("is not a parameter; there are days, by, tenant and format", where=sorted(asked)[0][:40])
        found = await asyncio.to_thread(self._report, days, by, tenant)
        if form == "csv":
            return Response(report_csv(found), media_type="text/csv")
        return Response(report_json(found), media_type=_JSON)

    def _report(self, days: int, by: Dimension | None, tenant: str | None) -> Report:
        return make_report(self._access.store(), days, datetime.now(UTC).date(), by=by, tenant=tenant)


def _tenant(asked: str | None, key: ApiKey | None) -> str | None:
    """Whose report it is; None: all tenants', for those that may see them. Raises InputError, AccessError."""
    if asked is not None and read_name(asked, "tenant") is None:
        raise InputError("is empty; name one, or leave it out", where="tenant")
    if key is None or key.allows("admin"):
        return asked
    if asked not in (None, key.tenant):
        raise AccessError("not_allowed", f"this key reports on {key.tenant!r} alone")
    return key.tenant


def _unknown(event: Event) -> str | None:
    """Why its cost is not known."""
    if event.cost is not None:
        return None
    usage = event.usage
    return "usage" if usage is None or usage.input_tokens is None or usage.output_tokens is None else "price"


def _key(header: str | None) -> str | None:
    if header is not None and not _KEY.fullmatch(header):
        raise InputError("must be 1 to 256 printable characters of ASCII, without blanks", where="Idempotency-Key")
    return header


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_DAYS):
        raise InputError(f"must be a whole number from 1 to {MOST_DAYS}, not {text[:40]!r}", where="days")
    return int(text)


def _dimension(text: str | None) -> Dimension | None:
    if text is None or text in get_args(Dimension):
        return text  # type: ignore[return-value]
    raise InputError(f"must be one of {', '.join(DIMENSIONS)}, not {text[:40]!r}", where="by")
