"""A call that was made elsewhere, as a client tells of it, as an event of the ledger."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Literal
from uuid import uuid4

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from serving.attribution import NOBODY, Attribution, read_attribution
from serving.errors import InputError
from serving.ledger.events import Cost, Event, Name, PicoUsd, UtcTime
from serving.ledger.priced import price_call
from serving.ledger.prices import BATCH, PriceBook
from serving.ledger.reported import read_usage
from serving.ledger.usage import Usage, with_estimates
from serving.tiers import PICO_PER_USD, Tier

_BY_CLIENT: Final = "client"
_IN_METADATA: Final = ("team", "feature", "session_id")
_READ_APART: Final = {
    "usage", "usage_estimated", "input_text", "output_text", "cost_usd", "key", "time", "batch", "service_tier", "tier",
    "metadata",
}  # fmt: skip


def _pico_usd(value: object) -> object:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number of dollars, or one written as text to keep all its digits")
    try:
        pico = Decimal(str(value)) * PICO_PER_USD
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a number of dollars") from None
    if not pico.is_finite() or pico != pico.to_integral_value():
        raise ValueError(f"{value!r} is not a number of dollars with at most twelve decimals")
    return int(pico)


Usd = Annotated[PicoUsd | None, BeforeValidator(_pico_usd, json_schema_input_type=float | str | None)]


def _text(value: object) -> object:
    if value is not None and not isinstance(value, str):
        raise ValueError("must be text: 2026-11-26T12:00:00Z")
    return value


class RecordedCall(BaseModel):
    """What `POST /ledger/events` takes. Cost is what was paid, where it is known; otherwise it follows from model and
    usage by the price of the day."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: Name = Field(description="the model that answered")
    provider: Name | None = Field(None, description="who serves it; not given: by the name of the model")
    model_asked: Name | None = Field(None, description="the model that was asked for, where it is another")
    usage: Any = Field(None, description="as the provider reports it: OpenAI's, Anthropic's or Google's form, or ours")
    usage_estimated: bool = Field(False, description="whether `usage` was counted by you rather than by the provider")
    input_text: str | None = Field(
        None,
        description="what was sent, where the provider told no usage: tokens are estimated, the text is not kept",
    )
    output_text: str | None = Field(None, description="likewise what came, of an answer that was cut off for instance")
    cost_usd: Usd = Field(None, description="what was paid; as text to keep more digits than a float has")
    key: Name | None = Field(None, description="the same key again changes nothing; or the header Idempotency-Key")
    kind: Literal["call", "judge", "embedding", "batch_line"] = "call"
    status: Literal["ok", "error", "cancelled"] = "ok"
    error: Name | None = Field(None, description="the provider's code, not its message")
    time: Annotated[UtcTime | None, BeforeValidator(_text, json_schema_input_type=UtcTime | None)] = Field(
        None, strict=False, description="when it was made, with its zone; not given: now"
    )
    latency_ms: int | None = Field(None, ge=0, le=2**40)
    batch: bool = Field(False, description="whether it costs the price of batches")
    service_tier: Name | None = Field(
        None, description="as the provider reports it: `flex`, `priority`; it has its own price, or an unknown one"
    )
    wasted: bool = Field(False, description="whether nobody got the answer: it was tried again, or escalated")
    tier: Name | None = Field(
        None, description="not given: the tier of the ladder that has the model, or the one asked for"
    )
    decision_id: Name | None = Field(None, description="of the decision of /route that chose the model")
    completion_id: Name | None = Field(None, description="the `id` of the provider's answer, for feedback by it")
    request_id: Name | None = Field(None, description="an id of your own, for feedback by it")
    user: Name | None = None
    metadata: dict[str, Any] | None = Field(None, description="`team`, `feature`, `session_id`, as for /route")


def read_call(
    payload: dict[str, object],
    prices: PriceBook,
    ladder: Sequence[Tier],
    key: str | None = None,
    by: Attribution = NOBODY,
) -> Event:
    """The event of a call. key: that of the request's header. by: whose it is. Raises InputError naming the field.

    Of a call that a decision chose, routing saved what the top tier's first model would have cost for the same tokens,
    less what the chosen one costs, both at the standard price and where both are known.
    """
    usage = read_usage(payload.get("usage"))
    who = read_attribution(payload.get("metadata"), by=by)
    try:
        call = RecordedCall.model_validate(payload)
        if call.key is not None and key is not None and call.key != key:
            raise InputError(f"is {call.key!r}, and the header Idempotency-Key {key!r}; send one of them", where="key")
        return _event(call, usage, who, prices, ladder, call.key or key or f"call_{uuid4().hex}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        where = f"metadata.{where}" if where in _IN_METADATA else where
        raise InputError(str(first["msg"]), where=where) from None


def _event(
    call: RecordedCall, usage: Usage | None, who: Attribution, prices: PriceBook, ladder: Sequence[Tier], key: str
) -> Event:
    at = call.time or datetime.now(UTC)
    told, usage = usage, with_estimates(usage, lambda: call.input_text, call.output_text)
    decided = call.decision_id is not None and call.kind == "call" and not call.wasted
    processing = BATCH if call.batch else call.service_tier
    cost, saved = price_call(
        prices,
        call.model,
        usage,
        at,
        provider=call.provider,
        processing=processing,
        paid=None if call.cost_usd is None else Cost(pico_usd=call.cost_usd, source=_BY_CLIENT),
        instead_of=ladder[-1].models[0] if decided and ladder else None,
    )
    same = call.model_dump(exclude=_READ_APART)
    names = {call.model, call.model_asked}  # a provider answers with a dated name where it was asked by another
    tier = call.tier or next((tier.name for tier in ladder if names.intersection(tier.models)), None)
    return Event(
        **same, key=key, time=at, usage=usage, usage_estimated=call.usage_estimated or usage != told, cost=cost,
        saved=saved, tier=tier, tenant=who.tenant, api_key=who.api_key, team=who.team, feature=who.feature,
        session_id=who.session_id, processing=processing,
    )  # fmt: skip
