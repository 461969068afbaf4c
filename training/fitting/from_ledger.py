"""How the ledger becomes examples: its decisions, labelled by the feedback on them and on their calls.

No text is needed: a decision keeps the embedding and the features that it saw.
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.chat import Conversation, read_conversation
from serving.classifier.features import FEATURES_VERSION, text_features
from serving.classifier.quantised import dequantised
from serving.classifier.text_key import text_key
from serving.errors import InputError, LabelError
from serving.ledger.events import Event
from serving.ledger.feedback import Feedback as Given
from serving.ledger.request_log import Logged, LoggedDecision
from training.fitting.embeddings import EmbeddingStore
from training.fitting.examples import Examples
from training.fitting.labelled import LabelledPrompt, examples_of
from training.labelling.outcomes import Labeller
from training.labelling.summary import LabelSummary
from training.logs.ladder import Ladder
from training.logs.record import Feedback, Outcome, Usage

_OF_A_CALL: Final = ("key", "completion_id", "request_id")


def read_ledger_examples(
    logged: Iterable[Logged], ladder: Ladder, labeller: Labeller, encoder: str, store: EmbeddingStore
) -> tuple[Examples, LabelSummary, Counter[str]]:
    """The decisions with an outcome, what their labels amount to, and how many were set aside, by the reason.

    encoder: digest of the one that the router will use. store: its embeddings, for decisions that another encoder, or
    none, saw and whose text is kept.
    Raises LabelError when no decision carries an outcome of a tier on the ladder.
    """
    summary, aside = LabelSummary(ladder.names), Counter[str]()
    prompts: list[LabelledPrompt] = []
    known: dict[int, NDArray[np.float32]] = {}
    texts: dict[int, str] = {}
    for decision, calls, feedback in logged:
        labels = labeller(outcomes_of(decision, calls, feedback, ladder))
        if np.isnan(labels.acceptable).all():
            aside["without an outcome of a tier on the ladder"] += 1
            continue
        conversation = _stored(decision)
        features = _features(decision, conversation)
        embedding = _embedding(decision, encoder)
        if features is None or (embedding is None and conversation is None):
            aside["seen by another encoder or version, and without text to embed again"] += 1
            continue
        if embedding is not None:
            known[len(prompts)] = embedding
        elif conversation is not None:
            texts[len(prompts)] = conversation.last_user_text
        summary.add(labels)
        slices = (None, decision.task, decision.team, decision.feature)
        key = decision.text_key.encode()
        prompts.append(LabelledPrompt(decision.id, key, features, decision.input_tokens, False, np.nan, slices, labels))
    if not prompts:
        raise LabelError(f"no decision in the ledger can be learned from: {_counted(aside) or 'there is none'}")
    return examples_of(prompts, _embeddings(prompts, known, texts, store)), summary, aside


def outcomes_of(
    decision: LoggedDecision, calls: Iterable[Event], feedback: Iterable[Given], ladder: Ladder
) -> list[Outcome]:
    """What became of a decision, tier by tier.

    Feedback that names a call is about that call; what names the decision, or the request of all its calls, is about
    the last call that answered, or about the tier decided where no call was told. Of several about one call, the last
    counts. The propensity is known of the tier that was decided, not of one that a client went to by itself.
    """
    answered = [call for call in calls if call.status == "ok" and call.kind in ("call", "batch_line")]
    last = next((call for call in reversed(answered) if not call.wasted), answered[-1] if answered else None)
    names: dict[str, Event | None] = {decision.id: last}
    for one in answered:
        names |= {id_: one for name in _OF_A_CALL if (id_ := getattr(one, name)) is not None}
    if decision.request_id is not None:
        names[decision.request_id] = last
    about = {call.key if (call := names.get(given.id, last)) is not None else None: given for given in feedback}
    if last is None:
        return [_outcome(decision, decision.tier, None, about[None])] if None in about else []
    tiers = [ladder.tier_of(one.model) or one.tier or decision.tier for one in answered]
    return [_outcome(decision, tier, one, about.get(one.key)) for tier, one in zip(tiers, answered, strict=True)]


def _outcome(decision: LoggedDecision, tier: str, call: Event | None, given: Given | None) -> Outcome:
    usage = call.usage if call is not None else None
    return Outcome(
        tier=tier,
        usage=Usage() if usage is None else Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens),
        cost_pico_usd=None if call is None or call.cost is None else call.cost.pico_usd,
        propensity=decision.propensity if tier == decision.tier else None,
        acceptable=given and given.acceptable,
        score=given and given.score,
        feedback=None if given is None or given.kind is None else Feedback(kind=given.kind),
    )


def _stored(decision: LoggedDecision) -> Conversation | None:
    if decision.request is None:
        return None
    try:
        return read_conversation(**json.loads(decision.request))
    except InputError:  # the redaction left nothing to read
        return None


def _features(decision: LoggedDecision, conversation: Conversation | None) -> NDArray[np.float32] | None:
    if decision.features_version == FEATURES_VERSION:
        return np.frombuffer(decision.features, np.float32)
    return None if conversation is None else text_features(conversation)


def _embedding(decision: LoggedDecision, encoder: str) -> NDArray[np.float32] | None:
    if decision.embedding is None or decision.embedding_scale is None or decision.encoder != encoder:
        return None
    codes = np.frombuffer(decision.embedding, np.int8)
    vectors = dequantised(codes[None, :], np.array([decision.embedding_scale], np.float32))
    return np.asarray(vectors[0], np.float32)


def _embeddings(
    prompts: list[LabelledPrompt], known: dict[int, NDArray[np.float32]], texts: dict[int, str], store: EmbeddingStore
) -> NDArray[np.float32]:
    """Those that are known, and of the texts those that are computed now."""
    for _ in store.add(texts.values()):
        pass
    computed = store.read([text_key(text) for text in texts.values()])
    found = known | dict(zip(texts, computed, strict=True))
    return np.stack([found[i] for i in range(len(prompts))])


def _counted(aside: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in aside.items())
