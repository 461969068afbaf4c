"""Which flaws of an answer are worth another call, as a user writes it in the settings."""

from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Flaw = Literal["empty", "refused", "cut", "schema"]
FLAWS: Final[tuple[Flaw, ...]] = get_args(Flaw)
FLAW_CODES: Final[dict[Flaw, str]] = {flaw: f"answer_{flaw}" for flaw in FLAWS}
"""What the ledger calls them, as the error of a call that was answered."""

_LISTED: Final = "flaws of a whole answer for which the next tier is asked, once"


class EscalateEntry(BaseModel):
    """Flaws for which an answer is thrown away and the next tier asked, by the kind of policy; see docs/gateway.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quality: tuple[Flaw, ...] = Field((), description=f"{_LISTED}; not set: none")
    share: tuple[Flaw, ...] = Field((), description="the same under `share`")
    value: tuple[Flaw, ...] = Field((), description="the same under `value`")

    def under(self, policy: Literal["quality", "share", "value"]) -> tuple[Flaw, ...]:
        """What is looked for under a policy."""
        found: tuple[Flaw, ...] = getattr(self, policy)
        return found
