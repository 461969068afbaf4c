"""What may be spent, by whom, in which period; and what is left of it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from serving.attribution import DEFAULT_TENANT
from serving.ledger.events import Name, PicoUsd

Scope = Literal["tenant", "team", "feature", "user", "api_key"]
SCOPES: Final[tuple[Scope, ...]] = ("tenant", "team", "feature", "user", "api_key")
Period = Literal["day", "month"]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise ValueError(f"{name!r} is no time zone, such as Europe/Lisbon or UTC") from None
    return name


class Budget(BaseModel):
    """A limit on what a tenant, team, feature, user or key spends in a day or a month of a time zone.

    hard: calls that would pass it are refused. alert_at: the share of it from which it is told, once a period; it is
    told again when all is spent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Name = DEFAULT_TENANT
    scope: Scope
    value: Name
    period: Period
    zone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    limit_pico_usd: PicoUsd
    hard: bool = False
    alert_at: float = Field(0.8, gt=0, le=1)

    @model_validator(mode="after")
    def _of_all_is_of_its_tenant(self) -> Self:
        if self.scope == "tenant" and self.value != self.tenant:
            raise ValueError(f"is of tenant {self.value!r} in tenant {self.tenant!r}; they must be the same")
        return self

    def __str__(self) -> str:
        """As messages name it."""
        whose = "" if self.tenant == DEFAULT_TENANT or self.scope == "tenant" else f" of tenant {self.tenant!r}"
        of = "everybody" if (self.scope, self.value) == ("tenant", DEFAULT_TENANT) else f"{self.scope} {self.value!r}"
        return f"{'hard' if self.hard else 'soft'} budget of {of}{whose} for a {self.period}"

    def bounds(self, time: datetime) -> tuple[datetime, datetime]:
        """Begin and end, in UTC, of the period that the time is in; a day can have 23 or 25 hours."""
        local = time.astimezone(ZoneInfo(self.zone))
        begin = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        if self.period == "month":
            begin = begin.replace(day=1)
        after = begin.replace(tzinfo=None) + timedelta(days=1 if self.period == "day" else 32)
        if self.period == "month":
            after = after.replace(day=1)
        return begin.astimezone(UTC), after.replace(tzinfo=begin.tzinfo).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Spender:
    """Who a call is for; a name that is None has no budget."""

    tenant: str = DEFAULT_TENANT
    team: str | None = None
    feature: str | None = None
    user: str | None = None
    api_key: str | None = None


class BudgetStatus(NamedTuple):
    """A budget in a period: what was spent, what is reserved for calls under way, and when it begins anew."""

    budget: Budget
    spent_pico_usd: int
    reserved_pico_usd: int
    resets_at: datetime

    @property
    def left_pico_usd(self) -> int:
        """What another call may cost; below 0 when more was spent than allowed."""
        return self.budget.limit_pico_usd - self.spent_pico_usd - self.reserved_pico_usd
