"""Why a decision is what it is: scores, effects of features, nearest training prompts."""

from dataclasses import replace

import numpy as np
import pytest

from serving.chat import read_conversation
from serving.classifier.bundle import Bundle
from serving.classifier.classifier import Classifier
from serving.classifier.effects import MEANING, effects
from serving.classifier.encoder import EmbeddingMemo
from serving.classifier.features import FEATURE_NAMES, text_features
from serving.routing.policy import Policy
from serving.routing.router import Router
from serving.tiers import Tier
from tests.factories import TIERS, FakeEncoder
from training.fitting.router import without_encoder

HARD = read_conversation(prompt="Question 1: " + "prove it carefully, " * 20)
VALUE = Policy("value", 0.02)


def classifier(bundle: Bundle) -> Classifier:
    return Classifier(bundle, None if bundle.manifest.encoder is None else EmbeddingMemo(FakeEncoder(), 10))


def test_scores_are_probability_less_mu_times_cost_and_the_best_is_chosen(bundle: Bundle) -> None:
    decision = Router(classifier(bundle), "7").explain(HARD, VALUE)
    found = decision.explanation
    assert found.threshold == decision.threshold == 50
    for score in found.scores:
        assert score.probability == decision.probabilities[score.tier]
        assert score.expected_cost_usd is not None
        assert score.score == pytest.approx(score.probability - 50 * score.expected_cost_usd, abs=1e-6)
        assert score.eligible
    assert max(found.scores, key=lambda s: s.score).tier == decision.tier
    assert [score.model for score in found.scores] == ["small", "middle", "large"]


def test_an_explained_decision_is_the_decision_with_more(bundle: Bundle) -> None:
    router = Router(classifier(bundle), "7")
    plain, explained = router.decide(HARD, VALUE).model_dump(), router.explain(HARD, VALUE).model_dump()
    assert list(explained) == [*plain, "explanation"]
    assert {k: v for k, v in explained.items() if k not in ("id", "created", "explanation")} == {
        k: v for k, v in plain.items() if k not in ("id", "created")
    }


def test_an_effect_is_what_the_typical_value_would_have_given_less(bundle: Bundle) -> None:
    one = classifier(bundle)
    found = effects(one, HARD)
    assert found is not None
    assert bundle.trained_on is not None
    j = FEATURE_NAMES.index("log_chars")
    features = text_features(HARD)[None, :]
    changed = features.copy()
    changed[0, j] = np.median(bundle.trained_on.features[:, j])
    embedding = FakeEncoder().embed(HARD.last_user_text).vector[None, :]
    expected = bundle.predict(embedding, features).proba - bundle.predict(embedding, changed).proba
    np.testing.assert_allclose(found.change[j], expected[0], atol=1e-6)
    assert found.names[-1] == MEANING
    without = bundle.predict(bundle.heads.projection.mean[None, :], features).proba  # type: ignore[union-attr]
    np.testing.assert_allclose(found.change[-1], (bundle.predict(embedding, features).proba - without)[0], atol=1e-6)


def test_the_largest_effects_come_first_and_their_values_are_there(bundle: Bundle) -> None:
    features = Router(classifier(bundle), "7").explain(HARD).explanation.features
    sizes = [max(map(abs, feature.probabilities.values())) for feature in features]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0.05  # what makes it hard is its length, in one feature or another
    for feature in features:
        assert (feature.value is None) == (feature.feature == MEANING)


def test_the_nearest_prompts_are_named_by_id_with_their_outcomes(bundle: Bundle) -> None:
    assert bundle.trained_on is not None
    nearest = Router(classifier(bundle), "7").explain(HARD).explanation.nearest
    rows, cosines = bundle.trained_on.nearest(FakeEncoder().embed(HARD.last_user_text).vector, 5)
    assert [neighbour.id for neighbour in nearest] == [bundle.trained_on.ids[row] for row in rows]
    assert [neighbour.similarity for neighbour in nearest] == pytest.approx(cosines.tolist(), abs=1e-4)
    assert nearest[0].acceptable == dict(
        zip(("economy", "standard", "premium"), bundle.trained_on.acceptable[rows[0]].tolist(), strict=True)
    )


def test_a_tier_that_nobody_tried_is_null(bundle: Bundle) -> None:
    assert bundle.trained_on is not None
    holes = bundle.trained_on.acceptable.copy()
    holes[:, 1] = np.nan
    untried = replace(bundle, trained_on=replace(bundle.trained_on, acceptable=holes))
    nearest = Router(classifier(untried), "7").explain(HARD).explanation.nearest
    assert {neighbour.acceptable["standard"] for neighbour in nearest} == {None}


def test_a_router_that_remembers_nothing_explains_its_scores_only(bundle: Bundle) -> None:
    found = Router(classifier(replace(bundle, trained_on=None)), "7").explain(HARD).explanation
    assert len(found.scores) == 3
    assert (found.features, found.nearest) == ((), ())


def test_without_an_encoder_features_explain_and_nobody_is_near(bundle: Bundle) -> None:
    no_encoder = Router(Classifier(bundle, None), "7").explain(HARD)
    assert no_encoder.reason == "fallback"
    assert no_encoder.explanation.nearest == ()
    assert no_encoder.explanation.features
    assert MEANING not in [feature.feature for feature in no_encoder.explanation.features]
    built_in = Router(Classifier(without_encoder(bundle), None), "built-in", by_position=True)
    assert built_in.explain(HARD).explanation.features == ()


def test_without_prices_costs_are_unknown_and_an_ineligible_tier_is_marked(bundle: Bundle) -> None:
    tiers = tuple(Tier(name=t.name, models=t.models, vision=t.name == "premium") for t in TIERS)
    picture = read_conversation(
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "x"}}],
            }
        ]
    )
    scores = Router(classifier(bundle), "7", tiers=tiers).explain(picture).explanation.scores
    assert [score.expected_cost_usd for score in scores] == [None, None, None]
    assert [score.eligible for score in scores] == [False, False, True]
