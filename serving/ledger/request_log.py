"""What the request log keeps: what a decision saw, what came back, and what was thought of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

from serving.ledger.events import Event
from serving.ledger.feedback import Feedback

Matched = Literal["decision", "call"]
Forgettable = Literal["request", "session", "user"]
UNWRITTEN_S: Final = 2.0
"""After so long a decision is on disk, one that could be written at all."""


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A routing decision with all that training needs of its request, which is not its text. Not validated: one is made
    for every request, of values of our own.

    policy: as asked, `quality:0.95`. probabilities: P(acceptable) by tier. encoder: digest of what made `embedding`,
    int8 (d,) with its scale; None where features alone decided. features: float32 (f,) of `features_version`.
    text_key: sha256 of the last user turn, in hex, by which repeated prompts are known. request: messages, tools and
    response format as JSON, where text is stored.
    """

    id: str
    tenant: str
    time: datetime
    router: str
    policy: str
    tier: str
    model: str
    reason: str
    threshold: float
    propensity: float
    probabilities: Mapping[str, float]
    encoder: str | None
    embedding: bytes | None
    embedding_scale: float | None
    features: bytes
    features_version: int
    input_tokens: float
    text_key: str
    team: str | None
    feature: str | None
    task: str | None
    user: str | None
    session_id: str | None
    request_id: str | None
    request: str | None


class Logged(NamedTuple):
    """A decision, the calls that were made of it and the feedback on either, each oldest first."""

    decision: LoggedDecision
    calls: tuple[Event, ...]
    feedback: tuple[Feedback, ...]


class Forgotten(NamedTuple):
    """How many decisions and lines of feedback were deleted, and from how many events the names were taken."""

    decisions: int
    feedback: int
    events: int
