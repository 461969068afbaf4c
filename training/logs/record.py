"""What is a logged request?"""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from serving.chat import Conversation, read_conversation
from serving.errors import InputError
from serving.ledger.feedback import FeedbackKind
from serving.tiers import TierName

MAX_TOKENS = 10**9  # far above any context window; sums of it stay within int64
MAX_COST_PICO_USD = 10**18  # a million dollars for one request; in int64, as the ledger keeps it


def _well_formed(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds a lone surrogate at position {error.start}; write well-formed Unicode") from None
    return text


def _not_a_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")
    return value


def _a_boolean(value: object) -> object:
    """A boolean as it is, or as a table writes it; nothing else that might mean one."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError("must be true or false")


def _in_utc(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError("has no zone; add it, as in 2026-03-01T12:00:00Z")
    # Taken apart because Parquet's nanoseconds arrive as pandas Timestamps.
    plain = datetime.combine(time.date(), time.time(), time.tzinfo)
    try:
        return plain.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None


Text = Annotated[str, AfterValidator(_well_formed)]
Name = Annotated[Text, Field(min_length=1, max_length=512)]
RequestId = Annotated[
    str, Field(min_length=1, max_length=512, coerce_numbers_to_str=True), AfterValidator(_well_formed)
]
Number = Annotated[float, BeforeValidator(_not_a_boolean), Field(allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_not_a_boolean), Field(ge=0, le=MAX_TOKENS)]
UtcTime = Annotated[datetime, AfterValidator(_in_utc)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Usage(_Record):
    """Tokens of one answer, cached ones included; None is unknown, which is not 0."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None


class Feedback(_Record):
    """What a user did with an answer instead of judging it."""

    kind: FeedbackKind
    comment: Text | None = None


class LogMetadata(BaseModel):
    """Who asked, for reports by team, feature, session and task; other keys are allowed and not kept."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    team: Text | None = None
    feature: Text | None = None
    session_id: Text | None = None
    task: Text | None = None


class Outcome(_Record):
    """One model's answer to the request, and how it was judged: at most one of the last three fields.

    `propensity` is the probability with which the policy that answered would choose this tier.
    """

    model: Name | None = None
    tier: TierName | None = None
    response: Text | None = None
    response_chars: Count | None = None
    usage: Usage = Usage()
    cost_pico_usd: Annotated[int, Field(ge=0, le=MAX_COST_PICO_USD)] | None = None
    latency_s: Annotated[Number, Field(ge=0)] | None = None
    propensity: Annotated[Number, Field(gt=0, le=1)] | None = None
    acceptable: Annotated[bool | None, BeforeValidator(_a_boolean)] = None
    score: Annotated[Number, Field(ge=0, le=1)] | None = None
    feedback: Feedback | None = None

    @model_validator(mode="after")
    def _is_of_somebody_and_judged_once(self) -> Self:
        if self.model is None and self.tier is None:
            raise ValueError("says neither `model` nor `tier`; name the one that answered")
        judged = [name for name in ("acceptable", "score", "feedback") if getattr(self, name) is not None]
        if len(judged) > 1:
            raise ValueError(f"is judged by {' and '.join(judged)}; keep one of them")
        return self

    @property
    def judged(self) -> bool:
        """Whether it carries an outcome to learn from."""
        return self.acceptable is not None or self.score is not None or self.feedback is not None


class LoggedRequest(_Record):
    """A request as it was sent, and the outcome of every model that answered it.

    `table` and `split` say where a prompt of an outcome table comes from; both are None for a log.
    Validation raises InputError, as read_conversation does, when the request itself cannot be read.
    """

    id: RequestId
    time: UtcTime | None = None
    messages: list[Any] | None = None
    prompt: str | None = None
    tools: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    metadata: LogMetadata = LogMetadata()
    outcomes: tuple[Outcome, ...] = Field(min_length=1)
    table: str | None = None
    split: str | None = None

    _conversation: Conversation = PrivateAttr()

    @model_validator(mode="after")
    def _can_be_read_and_sent(self) -> Self:
        self._conversation = read_conversation(
            messages=self.messages,
            prompt=self.prompt,
            tools=self.tools,
            response_format=self.response_format,
        )
        for name in ("messages", "tools", "response_format"):
            if (value := getattr(self, name)) is not None:
                _check_sendable(value, name)
        return self

    @property
    def conversation(self) -> Conversation:
        """What routing reads of the request."""
        return self._conversation

    @property
    def judged(self) -> bool:
        """Whether any of its outcomes can become a label."""
        return any(outcome.judged for outcome in self.outcomes)


def _check_sendable(value: object, where: str) -> None:
    """InputError unless `value` can be written as JSON again: judges get it, and caches hash it, as sent."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise InputError("holds a lone surrogate; write well-formed Unicode", where=where) from None
    except RecursionError:
        raise InputError("is nested too deeply", where=where) from None
    except (TypeError, ValueError) as error:
        raise InputError(f"cannot be written as JSON: {error}", where=where) from None
