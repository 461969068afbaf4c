"""From a decision to what the request log keeps of it: always what training needs, text only where that is wanted."""

import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Final

from serving.attribution import Attribution
from serving.chat import Conversation
from serving.classifier.features import FEATURES_VERSION
from serving.classifier.text_key import text_key
from serving.errors import LedgerError
from serving.ledger.access import LedgerAccess
from serving.ledger.feedback import Feedback
from serving.ledger.request_log import LoggedDecision
from serving.redaction import Redact, redacted
from serving.routing.policy import Policy
from serving.routing.router import Considered, Router

logger = logging.getLogger(__name__)

_STORED: Final = ("messages", "prompt", "tools", "response_format")


class RequestLog:
    """Keeps decisions in the ledger's store, without making anybody wait for it.

    store_text: whether the request is kept as it was sent; redact: what every text goes through before, in threads of
    this class' callers. on_failure: is told of each decision that could not be kept, with or without its text, by what
    went wrong.
    """

    def __init__(
        self, access: LedgerAccess, *, store_text: bool, redact: Redact | None, on_failure: Callable[[str], None]
    ) -> None:
        self._access = access
        self.stores_text = store_text
        self._redact = redact
        self._on_failure = on_failure

    def keep(
        self,
        considered: Considered,
        router: Router,
        policy: Policy,
        conversation: Conversation,
        who: Attribution,
        payload: Mapping[str, object],
        request_id: str | None,
    ) -> None:
        """Hand the decision over; it is on disk within a second. A failure costs the log a line, never the answer."""
        store = self._access.opened
        if store is None:
            self._on_failure("unwritten")
            return
        decision, prediction = considered
        (embedding, scale), memo = prediction.embedding or (None, None), router.classifier.memo
        store.log(
            LoggedDecision(
                id=decision.id,
                tenant=who.tenant,
                time=datetime.now(UTC),
                router=decision.router,
                policy=str(policy),
                tier=decision.tier,
                model=decision.model,
                reason=decision.reason,
                threshold=decision.threshold,
                propensity=decision.propensity,
                probabilities=decision.probabilities,
                encoder=None if embedding is None or memo is None else memo.encoder.identity.digest,
                embedding=embedding,
                embedding_scale=scale,
                features=prediction.features.tobytes(),
                features_version=FEATURES_VERSION,
                input_tokens=prediction.input_tokens,
                text_key=text_key(conversation.last_user_text).decode(),
                team=who.team,
                feature=who.feature,
                task=who.task,
                user=who.user,
                session_id=who.session_id,
                request_id=request_id,
                request=self._text(payload) if self.stores_text else None,
            )
        ).add_done_callback(self._done)

    def feedback(self, given: Feedback) -> Feedback:
        """As it may be stored: its comment is text too."""
        if given.comment is None:
            return given
        kept = self._redacted(given.comment) if self.stores_text else None
        return given.model_copy(update={"comment": kept})

    def _text(self, payload: Mapping[str, object]) -> str | None:
        kept = self._redacted({name: payload[name] for name in _STORED if payload.get(name) is not None})
        return None if kept is None else json.dumps(kept, ensure_ascii=False)

    def _redacted(self, value: object) -> object:
        """None where the redaction failed: what it did not see is not stored."""
        if self._redact is None:
            return value
        try:
            return redacted(value, self._redact)
        except Exception as error:  # noqa: BLE001 -- code of the operator's; its message may hold the text
            logger.error("the redaction failed with %s; the text is not stored", type(error).__name__)
            self._on_failure("redaction")
            return None

    def _done(self, future: "Future[None]") -> None:
        if isinstance(future.exception(), LedgerError):  # the ledger has said why
            self._on_failure("unwritten")
