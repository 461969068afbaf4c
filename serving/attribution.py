"""Who asks: team, feature, task and session, as a client says in `metadata`; and the tier an operator pins for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.errors import InputError
from serving.tiers import TierName

LONGEST_NAME: Final = 256
DEFAULT_TENANT: Final = "default"
"""Whose everything is that comes without a key."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """What a client says of itself, None where it does not; and the tenant and the id of its key, which we know."""

    team: str | None = None
    feature: str | None = None
    task: str | None = None
    session_id: str | None = None
    user: str | None = None
    tenant: str = DEFAULT_TENANT
    api_key: str | None = None


NOBODY = Attribution()


def read_attribution(metadata: object, user: object = None, by: Attribution = NOBODY) -> Attribution:
    """The attribution in a request's `metadata`, whose other keys are the client's own, and its `user`; with the tenant
    and key of `by`. Empty text counts as absent.

    Raises InputError naming the field when `metadata` is no object, or one of our keys is no text or too long.
    """
    who = read_name(user, "user")
    if metadata is None:
        return by if who is None else replace(by, user=who)
    if not isinstance(metadata, Mapping):
        raise InputError(f"must be an object, not {type(metadata).__name__}", where="metadata")
    names = ("team", "feature", "task", "session_id")
    team, feature, task, session_id = (read_name(metadata.get(name), f"metadata.{name}") for name in names)
    return Attribution(team, feature, task, session_id, who, by.tenant, by.api_key)


def read_name(value: object, where: str) -> str | None:
    """A name or id that the ledger can keep. Raises InputError when it is none."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InputError(f"must be text, not {type(value).__name__}", where=where)
    if len(value) > LONGEST_NAME or "\x00" in value:
        raise InputError(f"must have at most {LONGEST_NAME} characters and no NUL, not {len(value)}", where=where)
    return value


class Pin(BaseModel):
    """A tier for every request of a team, a feature, a task, or of what has all of those that are given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    team: str | None = Field(None, min_length=1, description="the `team` in a request's metadata; not set: any")
    feature: str | None = Field(None, min_length=1, description="its `feature`; not set: any")
    task: str | None = Field(None, min_length=1, description="its `task`; not set: any. One of the three is needed")
    tier: TierName = Field(description="the tier such requests get where it can take them")

    @model_validator(mode="after")
    def _says_for_whom(self) -> Self:
        if self.team is None and self.feature is None and self.task is None:
            raise ValueError("pins everything; name a team, a feature or a task")
        return self

    def matches(self, who: Attribution) -> bool:
        """Whether the request is one of those meant."""
        return self.team in (None, who.team) and self.feature in (None, who.feature) and self.task in (None, who.task)


def pinned_elsewhere(pins: Sequence[Pin], tiers: Sequence[str]) -> str | None:
    """What is wrong with pins to tiers that are not among `tiers`; None when nothing is."""
    unknown = next((pin.tier for pin in pins if pin.tier not in tiers), None)
    return unknown and f"there is no tier {unknown!r} to pin to; there are {', '.join(tiers)}"
