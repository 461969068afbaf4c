"""What the ledger keeps of one upstream attempt, cache hit, judge call, embedding call or batch line."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from serving.attribution import DEFAULT_TENANT, LONGEST_NAME
from serving.ledger.usage import Usage

Kind = Literal["call", "cache_hit", "judge", "embedding", "batch_line"]
Status = Literal["started", "ok", "error", "cancelled"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME, pattern=r"^[^\x00]+$")]
PicoUsd = Annotated[int, Field(ge=0, le=2**62, strict=True)]
"""1e-12 USD; 2^62 of them are 4.6 million dollars, for one call."""
SavingKind = Literal["routing", "cache", "compression", "limits", "batch"]
SAVINGS: Final[tuple[SavingKind, ...]] = ("routing", "cache", "compression", "limits", "batch")


def _utc(time: datetime) -> datetime:
    return time.astimezone(UTC)


UtcTime = Annotated[AwareDatetime, AfterValidator(_utc)]


class Cost(BaseModel):
    """What a call cost, and by which price: `source` names the price list or the setting, `dated` its date."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pico_usd: PicoUsd
    source: Name
    dated: Name | None = None


class Event(BaseModel):
    """One line of the ledger, written once as `started` and once as settled, or settled at once.

    `key` makes it idempotent: the same key again changes nothing, except that it settles what was started. None of
    `usage` and `cost` means unknown, which reports list and never count as 0. `saved` is by how much more the same
    answer would have cost without each saving, for instance from the top tier; it can be negative. `wasted` marks
    attempts whose answer nobody got: what a retry, a fallback or an escalation cost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Name
    kind: Kind
    status: Status
    time: UtcTime
    request_id: Name | None = None
    completion_id: Name | None = None
    decision_id: Name | None = None
    tenant: Name = DEFAULT_TENANT
    api_key: Name | None = Field(None, description="id of the key it came with")
    team: Name | None = None
    feature: Name | None = None
    user: Name | None = None
    session_id: Name | None = None
    model_asked: Name | None = None
    model: Name | None = None
    provider: Name | None = None
    tier: Name | None = None
    usage: Usage | None = None
    usage_estimated: bool = False
    processing: Name | None = Field(None, description="`batch` or a service tier, where it was served by one")
    cost: Cost | None = None
    latency_ms: int | None = Field(None, ge=0, le=2**40)
    cached: bool = False
    wasted: bool = False
    error: Name | None = Field(None, description="a code of ours or the provider's, never a message")
    saved: dict[SavingKind, Annotated[int, Field(ge=-(2**62), le=2**62)]] = Field(default_factory=dict)
