"""Policies, decisions, and which router serves."""

import gc
import itertools
import json
import random
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.attribution import NOBODY, Attribution, Pin
from serving.chat import Conversation, read_conversation
from serving.classifier.bundle import Bundle, Predictions, Threshold, read_bundle, write_bundle
from serving.classifier.classifier import Classifier
from serving.classifier.encoder import EmbeddingMemo
from serving.errors import BundleError, ConfigurationError, InputError
from serving.routing.costs import expected_costs
from serving.routing.policy import DEFAULT_POLICY, Policy
from serving.routing.promoted import Pointer, PromotedRouter, check_settings
from serving.routing.router import Router
from serving.routing.rules import Rules
from tests.factories import TIERS, FakeEncoder, fake_home, point, put_in_service
from training.fitting.router import without_encoder

EASY = read_conversation(prompt="Question 1: prove it carefully, ")
JSON = {"type": "json_object"}
HARD = read_conversation(prompt="Question 1: " + "prove it carefully, " * 20)


def router(bundle: Bundle, **options: object) -> Router:
    return Router(Classifier(bundle, EmbeddingMemo(FakeEncoder(), 10)), "7", **options)  # type: ignore[arg-type]


def with_threshold(bundle: Bundle, mu: float | None) -> Bundle:
    thresholds = (Threshold(target=0.95, confidence=0.95, mu=mu, refused=None if mu else "too few labels"),)
    return Bundle(**{**vars(bundle), "manifest": bundle.manifest.model_copy(update={"thresholds": thresholds})})


def test_a_decision_says_what_was_chosen_and_why(bundle: Bundle) -> None:
    decision = router(with_threshold(bundle, 40.0)).decide(EASY)
    assert (decision.tier, decision.model, decision.reason) == ("economy", "small", "policy")
    assert decision.object == "routing.decision"
    assert list(decision.probabilities) == ["economy", "standard", "premium"]
    assert decision.threshold == 40.0
    assert decision.propensity == 1.0
    assert decision.router == f"7@{bundle.digest[:12]}"
    assert decision.expected_cost_usd == pytest.approx(8 * 0.15e-6 + decision_tokens(bundle) * 0.6e-6, rel=1e-3)


def decision_tokens(bundle: Bundle) -> float:
    return float(Classifier(bundle, EmbeddingMemo(FakeEncoder(), 1)).predict(EASY).output_tokens[0])


def test_hard_prompts_go_up_and_easy_ones_stay_down(bundle: Bundle) -> None:
    value = Policy("value", 0.1)
    assert router(bundle).decide(EASY, value).tier == "economy"
    assert router(bundle).decide(HARD, value).tier != "economy"


def test_a_worthless_answer_is_not_paid_for(bundle: Bundle) -> None:
    assert router(bundle).decide(HARD, Policy("value", 1e-6)).tier == "economy"


def test_a_refused_target_takes_the_most_probable_tier_and_says_so(bundle: Bundle) -> None:
    decision = router(with_threshold(bundle, None)).decide(HARD)
    assert (decision.tier, decision.reason, decision.threshold) == ("premium", "target_refused", 0.0)


def test_a_target_that_was_not_calibrated_is_refused_with_those_that_were(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"0\.9, 0\.95, 0\.98, 0\.99"):
        router(bundle).decide(EASY, Policy("quality", 0.5))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_at_most_the_share_of_calibration_prompts_goes_to_the_top(bundle: Bundle, share: float) -> None:
    one = router(bundle)
    mu = one._mu(Policy("share", share), fallback=False)[0]
    proba = bundle.calibration.predicted.proba
    top = np.mean(np.argmax(proba - mu * np.array([0, 0, 1]), axis=1) == 2)
    assert top <= share


def test_what_a_policy_is_expected_to_do_is_what_it_does_on_the_calibration_prompts(bundle: Bundle) -> None:
    """Four prompts, three tiers, μ = 0: two go to the top."""
    proba = np.array([[0.9, 0.2, 0.3], [0.1, 0.2, 0.7], [0.1, 0.8, 0.5], [0.2, 0.2, 0.9]], np.float32)
    predicted = Predictions(proba, np.ones((4, 3), np.float32))
    calibration = replace(
        bundle.calibration, predicted=predicted, fallback=predicted, input_tokens=np.ones(4, np.float32)
    )
    expected = router(replace(with_threshold(bundle, None), calibration=calibration)).expected(DEFAULT_POLICY)
    assert expected.top_share == 0.5
    assert expected.probability == pytest.approx((0.9 + 0.7 + 0.8 + 0.9) / 4)
    assert expected.top_probability == pytest.approx((0.3 + 0.7 + 0.5 + 0.9) / 4)


def test_without_calibration_prompts_nothing_is_expected(bundle: Bundle) -> None:
    blank = Predictions(np.ones((0, 3), np.float32), np.ones((0, 3), np.float32))
    calibration = replace(bundle.calibration, predicted=blank, fallback=blank, input_tokens=np.ones(0, np.float32))
    assert np.isnan(router(replace(bundle, calibration=calibration)).expected(DEFAULT_POLICY)).all()


def test_other_prices_choose_the_thresholds_again(bundle: Bundle) -> None:
    dear = tuple(
        tier.model_copy(update={name: 10 * getattr(tier, name) for name in ("input_pico_usd", "output_pico_usd")})
        for tier in TIERS
    )
    before, after = router(bundle).thresholds[0], router(bundle, tiers=dear).thresholds[0]
    assert before.mu is not None
    assert after.mu == pytest.approx(before.mu / 10, rel=1e-6)


def test_other_capabilities_leave_the_thresholds_as_they_are(bundle: Bundle) -> None:
    tiers = tuple(tier.model_copy(update={"models": ("other",), "context_window": 8000}) for tier in TIERS)
    assert router(bundle, tiers=tiers).thresholds is bundle.manifest.thresholds


def test_other_tiers_are_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="trained for tiers economy, standard, premium; the settings have economy"):
        router(bundle, tiers=TIERS[:2])


def test_the_features_alone_fit_any_ladder_by_position(bundle: Bundle, tmp_path: Path) -> None:
    alone = Classifier(write_bundle(tmp_path / "x", without_encoder(bundle)), None)
    two = tuple(tier.model_copy(update={"name": name}) for tier, name in zip(TIERS[::2], ("low", "high"), strict=True))
    decision = Router(alone, "built-in", tiers=two, by_position=True).decide(HARD)
    assert decision.reason == "fallback"
    assert decision.tier == "high"
    assert set(decision.probabilities) == {"low", "high"}


def hard_or_easy(i: int) -> Conversation:
    return read_conversation(prompt=f"Question {i}: " + "prove it carefully, " * (20 if i % 2 else 1))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    i=st.integers(0, 200),
    usd=st.lists(st.floats(1e-6, 100), min_size=2, max_size=6),
    windows=st.lists(st.none() | st.integers(1, 500), min_size=3, max_size=3).filter(lambda given: None in given),
)
def test_expected_cost_never_grows_with_mu_among_the_tiers_that_can_take_a_prompt(
    bundle: Bundle, i: int, usd: list[float], windows: list[int | None]
) -> None:
    tiers = tuple(
        tier.model_copy(update={"context_window": window}) for tier, window in zip(TIERS, windows, strict=True)
    )
    one, conversation = router(bundle, tiers=tiers), hard_or_easy(i)
    decisions = [one.decide(conversation, Policy("value", worth)) for worth in sorted(usd, reverse=True)]
    assert [d.threshold for d in decisions] == sorted(d.threshold for d in decisions)
    costs = [d.expected_cost_usd for d in decisions]
    assert all(later is not None and now is not None and later <= now for now, later in itertools.pairwise(costs))


def test_a_tier_that_cannot_take_the_conversation_is_not_chosen_and_the_reason_says_so(bundle: Bundle) -> None:
    blind = tuple(tier.model_copy(update={"json_mode": tier.name != "premium"}) for tier in TIERS)
    conversation = read_conversation(prompt="Question 1: " + "prove it carefully, " * 20, response_format=JSON)
    decision = router(bundle, tiers=blind).decide(conversation, Policy("value", 100))
    assert (decision.tier, decision.reason) == ("standard", "eligibility")
    assert router(bundle, tiers=blind).decide(HARD, Policy("value", 100)).tier == "premium"


def test_a_conversation_that_no_tier_can_take_is_refused_before_it_is_embedded(bundle: Bundle) -> None:
    encoder = FakeEncoder()
    blind = tuple(tier.model_copy(update={"json_mode": False}) for tier in TIERS)
    one = Router(Classifier(bundle, EmbeddingMemo(encoder, 10)), "7", tiers=blind)
    with pytest.raises(InputError, match="it needs JSON mode; economy lacks JSON mode;"):
        one.decide(read_conversation(prompt="hello", response_format=JSON))
    assert encoder.calls == 0


@pytest.mark.parametrize("policy", [Policy("value", 100), Policy("share", 0.9)])
def test_a_cap_leaves_the_top_to_the_prompts_that_gain_most_by_it(bundle: Bundle, policy: Policy) -> None:
    one, calibration = router(bundle), bundle.calibration
    mu = one._mu(policy, fallback=False)[0]
    costs = np.eye(3)[-1] if policy.name == "share" else expected_costs(
        TIERS, calibration.input_tokens, calibration.predicted.output_tokens
    )  # fmt: skip
    scores = calibration.predicted.proba - mu * costs
    gain = scores[:, 2] - scores[:, :2].max(axis=1)
    surcharge = one._surcharge(0.1, mu, policy.name == "share", False)
    kept = gain > surcharge
    assert 0 < kept.mean() <= 0.1
    assert np.mean(gain >= surcharge) > 0.1  # none larger would do
    assert (gain > 0).mean() > 0.3


def test_a_decision_kept_from_the_top_by_a_cap_says_so(bundle: Bundle) -> None:
    decision = router(bundle).decide(HARD, Policy("value", 100), rules=Rules(max_top_share=0.0))
    assert (decision.tier, decision.reason) == ("standard", "capped")


def test_a_pin_and_its_reason_stand_above_a_fallback(bundle: Bundle, tmp_path: Path) -> None:
    alone = Classifier(write_bundle(tmp_path / "x", without_encoder(bundle)), None)
    rules = Rules(pins=[Pin(team="search", tier="standard")], exploration=0.9, generator=random.Random(3))
    one = Router(alone, "7")
    pinned = one.decide(HARD, who=Attribution(team="search"), rules=rules)
    assert (pinned.tier, pinned.reason, pinned.propensity) == ("standard", "pinned", 1.0)
    assert {one.decide(HARD, who=NOBODY, rules=rules).reason for _ in range(10)} == {"fallback"}


def test_an_explored_decision_carries_its_propensity(bundle: Bundle) -> None:
    rules = Rules(exploration=0.3, generator=random.Random(3))
    decisions = [router(bundle).decide(EASY, Policy("value", 1e-6), rules=rules) for _ in range(60)]
    assert {(d.tier, d.reason, round(d.propensity, 9)) for d in decisions} == {
        ("economy", "policy", 0.8), ("standard", "exploration", 0.1), ("premium", "exploration", 0.1)
    }  # fmt: skip


def test_a_router_that_was_swapped_out_is_freed_without_the_collector(bundle: Bundle) -> None:
    """The service freezes what it has loaded: a cycle in it would never be collected."""
    one = router(bundle)
    one.decide(HARD, rules=Rules(max_top_share=0.1))
    gone = weakref.ref(one)
    gc.disable()
    try:
        del one
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, DEFAULT_POLICY),
        ("quality", DEFAULT_POLICY),
        ("quality:0.9", Policy("quality", 0.9)),
        ("share:.3", Policy("share", 0.3)),
        ({"name": "share", "max_share": 1}, Policy("share", 1.0)),
        ({"name": "value", "usd": "0.02"}, Policy("value", 0.02)),
    ],
)
def test_policies_are_read_in_both_forms(value: object, expected: Policy) -> None:
    assert Policy.parse(value, default=DEFAULT_POLICY) == expected


@pytest.mark.parametrize(
    "value",
    ["", "cheap", "share", "share:x", "share:2", "value:0", "value:nan", "value:inf", "quality:-1", 7, [], True,
     {}, {"name": None}, {"name": []}, {"name": "share"}, {"name": "share", "max_share": True},
     {"name": "share", "max_share": []}, {"name": "share", "target": 0.5}, {"name": "value", "usd": "1e999"}],
)  # fmt: skip
def test_a_wrong_policy_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(InputError) as caught:
        Policy.parse(value, default=DEFAULT_POLICY)
    assert str(caught.value.where).startswith("policy")


@pytest.fixture
def home(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fake_home(tmp_path, bundle, monkeypatch)


def test_before_any_promotion_the_built_in_router_answers(home: Path) -> None:
    promoted = PromotedRouter(home)
    assert promoted.refresh() is False
    assert "tierwise train --promote" in str(promoted.problem)
    assert promoted.router.decide(EASY).reason == "fallback"


def test_a_promotion_is_taken_over_once(home: Path, bundle: Bundle) -> None:
    promoted = PromotedRouter(home)
    put_in_service(home, bundle, "1")
    assert promoted.refresh() is True
    assert (promoted.router.version, promoted.problem) == ("1", None)
    assert promoted.refresh() is None
    put_in_service(home, bundle, "2")
    assert promoted.refresh() is True
    assert promoted.router.version == "2"


def test_the_memory_of_embeddings_survives_a_promotion_with_the_same_encoder(home: Path, bundle: Bundle) -> None:
    promoted = PromotedRouter(home)
    put_in_service(home, bundle, "1")
    promoted.refresh()
    promoted.router.decide(EASY)
    put_in_service(home, bundle, "2")
    promoted.refresh()
    assert promoted.router.classifier.remembers(EASY)


@pytest.mark.parametrize("damage", ["heads", "gone", "pointer", "digest", "golden"])
def test_a_bad_promotion_is_refused_and_the_old_router_serves_on(home: Path, bundle: Bundle, damage: str) -> None:
    promoted = PromotedRouter(home)
    put_in_service(home, bundle, "1")
    promoted.refresh()
    if damage == "golden":
        wrong = bundle.golden[0].model_copy(update={"proba": (0.0, 0.0, 0.0)})
        bundle = Bundle(**{**vars(bundle), "golden": (wrong,)})
    folder = put_in_service(home, bundle, "2")
    if damage == "heads":
        (folder / "heads.npz").write_bytes(b"not arrays")
    elif damage == "gone":
        shutil.rmtree(folder)
    elif damage == "pointer":
        (home / "served" / "current.json").write_text("{")
    elif damage == "digest":
        point(home, Pointer(version="2", folder="2", digest="0" * 64))
    assert promoted.refresh() is False
    assert promoted.router.version == "1"
    assert promoted.problem
    assert promoted.router.decide(EASY).reason != "fallback"
    put_in_service(home, read_bundle(home / "served" / "1"), "3")
    assert promoted.refresh() is True
    assert promoted.problem is None


def test_without_its_encoder_a_first_router_serves_from_features(
    home: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.classifier.encoder import Encoder

    monkeypatch.setattr("serving.routing.promoted.Encoder", Encoder)  # the real one finds no files
    promoted = PromotedRouter(home)
    put_in_service(home, bundle, "1")
    assert promoted.refresh() is True
    assert promoted.problem is not None
    decision = promoted.router.decide(EASY)
    assert (decision.reason, decision.router[:2]) == ("fallback", "1@")


def test_a_router_without_a_pinned_tier_is_refused(home: Path, bundle: Bundle) -> None:
    promoted = PromotedRouter(home, pins=[Pin(team="search", tier="gold")])
    put_in_service(home, bundle, "1")
    assert promoted.refresh() is False
    assert "there is no tier 'gold' to pin to; there are economy, standard, premium" in str(promoted.problem)


def test_the_pointer_is_plain_json(home: Path, bundle: Bundle) -> None:
    put_in_service(home, bundle, "1")
    assert set(json.loads((home / "served" / "current.json").read_text())) == {"version", "folder", "digest"}


def test_settings_that_value_answers_are_refused_for_a_router_without_prices(bundle: Bundle) -> None:
    unpriced = tuple(tier.model_copy(update={"input_pico_usd": None, "output_pico_usd": None}) for tier in bundle.tiers)
    without = bundle.manifest.model_copy(update={"tiers": unpriced})
    value = Policy(name="value", parameter=0.01)
    with pytest.raises(ConfigurationError, match="value needs a price for every tier"):
        check_settings(without, None, value)
    check_settings(without, bundle.tiers, value)  # the settings price them
    check_settings(bundle.manifest, None, value)
