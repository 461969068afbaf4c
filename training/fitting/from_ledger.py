"""How the ledger becomes examples: its decisions, labelled by the feedback on them and on their calls.

No text is needed: a decision keeps the embedding and the features that it saw.
"""

import json
import re
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
from serving.escalate_entry import FLAW_CODES
from serving.ledger.events import Event
from serving.ledger.feedback import Feedback as Given
from serving.ledger.request_log import Logged, LoggedDecision
from training.fitting.embeddings import EmbeddingStore
from training.fitting.examples import Examples
from training.fitting.labelled import LabelledPrompt, examples_of
from training.labelling.outcomes import Labeller
from training.labelling.summary import LabelSummary
from training.logs.ladder import Ladder
from training.logs.record import MAX_COST_PICO_USD, Feedback, Outcome, Usage

_BESIDE: Final = ("judge", "embedding")  # kinds of events that answer nobody
_DATED: Final = re.compile(r"-(\d{4}|\d{8}|\d{4}-\d\d-\d\d)$")
"""What providers add to the name they were asked by: gpt-4o-2024-08-06, gpt-4-0613."""


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
    """What became of a decision, by each of its answers from a tier on the ladder.

    Feedback is about the call it names (`named_calls`), and where no call was told, about the model decided. On a call
    that gave no answer it says nothing of its tier. Of several about one call, the last counts. An answer that the
    service found a flaw in counts as one that the client went to a stronger model after, unless somebody judged it. The
    propensity is known of the tier that was decided, not of one that a client went to by itself.
    """
    made = sorted(calls, key=lambda call: not call.wasted)
    named = named_calls(decision, made)
    if not named:
        said, tier = list(feedback), ladder.tier_of(decision.model)
        return [_outcome(decision, tier, None, said[-1])] if said and tier is not None else []
    about = {one.key: given for given in feedback if (one := named.get(given.id)) is not None}
    answers = [(call, _tier(call, ladder)) for call in made if _answers(call)]
    return [_outcome(decision, tier, call, about.get(call.key)) for call, tier in answers if tier is not None]


def named_calls(decision: LoggedDecision, calls: Iterable[Event]) -> dict[str, Event]:
    """Which call of the decision each id is about that feedback may come with.

    The decision's own, or that of a request of several calls, is about the last call that answered, one that was kept
    before one that was wasted.
    """
    named: dict[str, Event] = {}
    last = None
    made = (call for call in calls if call.kind not in _BESIDE)
    for last in sorted(made, key=lambda call: (_answers(call), not call.wasted)):  # later ones win
        named |= {id_: last for id_ in (last.request_id, last.completion_id, last.key) if id_ is not None}
    if last is not None:
        named |= {id_: last for id_ in (decision.id, decision.request_id) if id_ is not None}
    return named


def _answers(call: Event) -> bool:
    return call.status == "ok" and call.kind in ("call", "batch_line")


def _tier(call: Event, ladder: Ladder) -> str | None:
    """By the model that answered or was asked for, else as the client told it; None where it is not on the ladder."""
    for model in (call.model, call.model_asked):
        if model is not None and (tier := ladder.tier_of(model) or ladder.tier_of(_DATED.sub("", model))) is not None:
            return tier
    return call.tier if call.tier in ladder.names else None


def _outcome(decision: LoggedDecision, tier: str, call: Event | None, given: Given | None) -> Outcome:
    usage = call.usage if call is not None else None
    cost = None if call is None or call.cost is None else call.cost.pico_usd
    flawed = given is None and call is not None and call.error in FLAW_CODES.values()
    kind = "escalate" if flawed else given and given.kind
    return Outcome(
        tier=tier,
        usage=Usage() if usage is None else Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens),
        cost_pico_usd=None if cost is None or cost > MAX_COST_PICO_USD else cost,  # of no use beyond a million dollars
        propensity=decision.propensity if tier == decision.tier else None,
        acceptable=given and given.acceptable,
        score=given and given.score,
        feedback=None if kind is None else Feedback(kind=kind),
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
