"""What somebody thought of an answer, as a client tells of it."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.attribution import DEFAULT_TENANT
from serving.errors import InputError
from serving.ledger.events import Name, UtcTime

FeedbackKind = Literal["regenerate", "escalate", "edit"]
JUDGED: Final = ("acceptable", "score", "kind")


def _well_formed(text: str) -> str:
    if "\x00" in text:
        raise ValueError("holds a NUL")
    return text


class GivenFeedback(BaseModel):
    """What `POST /v1/feedback` takes: a judgement (acceptable, or a score), or what the user did instead of one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Name = Field(description="of the decision, of the provider's answer, or your own: decision_id, completion_id, "
                     "request_id or key of the recorded call")  # fmt: skip
    acceptable: bool | None = Field(None, description="whether the answer was good enough")
    score: float | None = Field(None, ge=0, le=1, allow_inf_nan=False, description="a grade, 1 the best")
    kind: FeedbackKind | None = Field(
        None, description="asked for another answer, went to a stronger model, or changed the answer"
    )
    comment: Annotated[str, AfterValidator(_well_formed)] | None = Field(
        None, max_length=10_000, description="kept only where `store_text` is on"
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        said = [name for name in JUDGED if getattr(self, name) is not None]
        if len(said) != 1:
            raise ValueError(f"give exactly one of {', '.join(JUDGED)}, not {' and '.join(said) or 'none'}")
        return self


class Feedback(GivenFeedback):
    """Feedback with who gave it and when; the last one about an answer counts, and all are kept."""

    tenant: Name = DEFAULT_TENANT
    time: UtcTime


def read_feedback(payload: dict[str, object], tenant: str) -> Feedback:
    """The feedback in a request of a tenant. Raises InputError naming the field."""
    try:
        given = GivenFeedback.model_validate(payload)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(str(first["msg"]), where=".".join(map(str, first["loc"])) or "body") from None
    return Feedback(**dict(given), tenant=tenant, time=datetime.now(UTC))
