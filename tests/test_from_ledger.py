"""Decisions, calls and feedback as labels."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from serving.chat import read_conversation
from serving.classifier.features import FEATURES_VERSION, text_features
from serving.classifier.quantised import quantised
from serving.classifier.text_key import text_key
from serving.errors import LabelError
from serving.ledger.events import Cost, Event
from serving.ledger.feedback import Feedback as Given
from serving.ledger.request_log import Logged, LoggedDecision
from serving.tiers import Tier
from tests.factories import FakeEncoder
from tests.ledger_events import NOON, event
from training.config import FeedbackWeights
from training.fitting.embeddings import EmbeddingStore
from training.fitting.from_ledger import outcomes_of, read_ledger_examples
from training.labelling.outcomes import Labeller
from training.logs.ladder import Ladder

LADDER = Ladder(tiers=(Tier(name="low", models=("small-1",)), Tier(name="high", models=("large-1",))))
LABELLER = Labeller(LADDER.names, 0.5, FeedbackWeights(), 100.0)
ENCODER = FakeEncoder()
TEXT = "Summarise the minutes of the meeting"


def decision(**changes: object) -> LoggedDecision:
    codes, scale = quantised(ENCODER.embed(TEXT).vector[None, :])
    made = LoggedDecision(
        id="dec-1", tenant="default", time=NOON, router="1@abc", policy="quality:0.95", tier="low", model="small-1",
        reason="policy", threshold=1.0, propensity=0.8, probabilities={"low": 0.7, "high": 0.9},
        encoder=ENCODER.identity.digest, embedding=codes[0].tobytes(), embedding_scale=float(scale[0]),
        features=text_features(read_conversation(prompt=TEXT)).tobytes(), features_version=FEATURES_VERSION,
        input_tokens=9.0, text_key=text_key(TEXT).decode(), team="support", feature=None, task=None, user=None,
        session_id=None, request_id="own", request=None,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def call(key: str, **changes: object) -> Event:
    return event(key, tier=None, decision_id="dec-1", **changes)


def given(id_: str, **said: object) -> Given:
    return Given.model_validate({"id": id_, "time": NOON, **said})


def outcomes(calls: list[Event], *feedback: Given) -> list[tuple[str | None, bool | None, float | None]]:
    found = outcomes_of(decision(), calls, feedback, LADDER)
    return [(one.tier, one.acceptable, one.propensity) for one in found]


def test_feedback_on_a_decision_without_a_call_is_about_its_tier() -> None:
    assert outcomes([], given("dec-1", acceptable=False)) == [("low", False, 0.8)]


def test_without_feedback_and_calls_there_is_no_outcome() -> None:
    assert outcomes([]) == []


def test_the_last_feedback_counts() -> None:
    said = [given("dec-1", acceptable=True), given("own", acceptable=False)]
    assert outcomes([call("a")], *said) == [("low", False, 0.8)]


def test_feedback_on_a_decision_is_about_the_answer_that_was_kept() -> None:
    calls = [call("a", wasted=True), call("b", model="large-1", time=NOON + timedelta(seconds=1))]
    assert outcomes(calls, given("dec-1", acceptable=True)) == [("low", None, 0.8), ("high", True, None)]


def test_feedback_by_the_answers_id_is_about_that_answer() -> None:
    calls = [call("a", completion_id="chat-a"), call("b", model="large-1", time=NOON + timedelta(seconds=1))]
    said = [given("chat-a", acceptable=False), given("b", acceptable=True)]
    assert outcomes(calls, *said) == [("low", False, 0.8), ("high", True, None)]


def test_feedback_on_what_gave_no_answer_says_nothing_of_a_tier() -> None:
    failed, judged = call("a", status="error"), call("b", kind="judge", model="large-1", completion_id="judge-b")
    assert outcomes([failed], given("dec-1", acceptable=True)) == []
    said = [given("dec-1", acceptable=True), given("a", acceptable=False), given("judge-b", acceptable=False)]
    answer = call("c", time=NOON - timedelta(seconds=1))
    assert outcomes([answer, failed, judged], *said) == [("low", True, 0.8)]


def test_feedback_on_a_request_of_several_calls_is_about_the_one_that_was_kept() -> None:
    calls = [
        call("a", request_id="r", model="large-1"),
        call("b", request_id="r", wasted=True),
        call("c", request_id="r", status="error"),
    ]
    assert outcomes(calls, given("r", acceptable=True)) == [("low", None, 0.8), ("high", True, None)]


@pytest.mark.parametrize(
    ("changes", "tier"),
    [
        ({"model": "small-1-2026-08-06"}, "low"),
        ({"model": "small-1-20260806"}, "low"),
        ({"model": "small-1-mini"}, None),
        ({"model": "gateway/3", "model_asked": "large-1"}, "high"),
        ({"model": "other"}, None),
        ({"model": None, "tier": "high"}, "high"),
        ({"model": None, "tier": "a tier of another ladder"}, None),
    ],
)
def test_an_answer_is_labelled_by_a_tier_of_the_ladder_or_not_at_all(
    changes: dict[str, object], tier: str | None
) -> None:
    found = outcomes([event("a", **{"tier": None, **changes})], given("dec-1", acceptable=True))
    assert [one[0] for one in found] == ([] if tier is None else [tier])


def test_a_decision_for_a_model_that_has_left_the_ladder_labels_nothing() -> None:
    assert outcomes_of(decision(model="small-0"), [], [given("dec-1", acceptable=True)], LADDER) == []


def test_a_cost_that_no_answer_can_have_is_unknown() -> None:
    dear = call("a").model_copy(update={"cost": Cost(pico_usd=2**61, source="client")})
    (outcome,) = outcomes_of(decision(), [dear], [given("a", acceptable=True)], LADDER)
    assert outcome.cost_pico_usd is None


def test_complaints_and_costs_are_carried_over() -> None:
    (outcome,) = outcomes_of(decision(), [call("a")], [given("a", kind="regenerate")], LADDER)
    assert outcome.feedback is not None
    assert (outcome.feedback.kind, outcome.cost_pico_usd, outcome.usage.output_tokens) == (
        "regenerate", 1_000_000_007, 20,
    )  # fmt: skip


def test_a_flaw_that_the_service_found_is_a_complaint_unless_somebody_judged_that_answer() -> None:
    flawed = call("a", wasted=True, error="answer_schema", completion_id="chat-a")
    given_one = call("b", model="large-1", time=NOON + timedelta(seconds=1))
    first, second = outcomes_of(decision(), [flawed, given_one], [given("dec-1", acceptable=True)], LADDER)
    assert first.feedback is not None
    assert (first.tier, first.feedback.kind, first.propensity) == ("low", "escalate", 0.8)
    assert (second.tier, second.acceptable, second.feedback) == ("high", True, None)
    judged, _ = outcomes_of(decision(), [flawed, given_one], [given("chat-a", acceptable=True)], LADDER)
    assert (judged.acceptable, judged.feedback) == (True, None)
    failed = call("c", status="error", error="status_500")
    assert outcomes_of(decision(), [failed], [], LADDER) == []


def examples(logged: list[Logged], folder: Path) -> tuple[object, Counter[str]]:
    store = EmbeddingStore(folder, ENCODER)
    found, _, aside = read_ledger_examples(logged, LADDER, LABELLER, ENCODER.identity.digest, store)
    return found, aside


def test_examples_are_what_the_decision_saw(tmp_path: Path) -> None:
    logged = [Logged(decision(), (), (given("dec-1", score=0.9),)), Logged(decision(id="dec-2"), (), ())]
    found, aside = examples(logged, tmp_path)
    assert list(found.id) == ["dec-1"]
    assert found.acceptable.tolist()[0][0] == 1
    assert np.isnan(found.acceptable[0, 1])
    assert float(found.embedding[0] @ ENCODER.embed(TEXT).vector) > 0.9999
    assert found.features.tolist() == [text_features(read_conversation(prompt=TEXT)).tolist()]
    assert aside == {"without an outcome of a tier on the ladder": 1}


@pytest.mark.parametrize(
    "changes", [{"encoder": "another"}, {"encoder": None, "embedding": None}, {"features_version": 1}]
)
def test_what_another_version_saw_is_computed_again_from_text_or_set_aside(
    changes: dict[str, object], tmp_path: Path
) -> None:
    said = (given("dec-1", acceptable=True),)
    with pytest.raises(LabelError, match="1 seen by another encoder or version"):
        examples([Logged(decision(**changes), (), said)], tmp_path)
    with_text = decision(request='{"prompt": "' + TEXT + '"}', **changes)
    found, aside = examples([Logged(with_text, (), said)], tmp_path)
    assert float(found.embedding[0] @ ENCODER.embed(TEXT).vector) > 0.9999
    assert not aside
