"""Heads: what they are fitted to, what calibration does to them, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from serving.classifier.heads import Heads
from serving.classifier.kernel import Kernel
from serving.classifier.proba import sigmoid
from serving.errors import BundleError, LabelError
from tests.factories import CONFIG, made_up_examples
from training.fitting.choice import choose
from training.fitting.cross_validation import cross_validated
from training.fitting.examples import Examples
from training.fitting.heads import Recipe, calibrated, check_labels, fit_heads
from training.fitting.prior import fit_prior, without_copies

RECIPE = Recipe(CONFIG.heads, "kernel", prior=None, seed=0)
BOTH = replace(RECIPE, members="kernel and trees")


def proba(heads: Heads, examples: Examples) -> np.ndarray:
    return heads.predict(None if heads.projection is None else examples.embedding, examples.features)[0]


@pytest.mark.parametrize("recipe", [RECIPE, BOTH])
def test_heads_survive_being_stored(recipe: Recipe) -> None:
    examples = made_up_examples(400)
    prior = fit_prior(made_up_examples(400, seed=1), CONFIG.heads, seed=0).kernel
    for heads in (fit_heads(examples, replace(recipe, prior=prior)), fit_heads(examples, recipe, features_only=True)):
        dimension = 0 if heads.projection is None else 8
        columns = examples.features.shape[1]
        again = Heads.from_arrays(heads.to_arrays("x"), "x", dimension=dimension, columns=columns, tiers=3)
        np.testing.assert_array_equal(proba(again, examples), proba(heads, examples))
        assert (again.prior is None) == (heads.prior is None)


def test_stored_heads_that_do_not_fit_are_refused() -> None:
    examples = made_up_examples(400)
    arrays = fit_heads(examples, RECIPE, features_only=True).to_arrays("x")
    columns = examples.features.shape[1]
    for tiers in (2, 4):
        with pytest.raises(BundleError, match=r"x\.kernel\.weights is not"):
            Heads.from_arrays(arrays, "x", dimension=0, columns=columns, tiers=tiers)
    with pytest.raises(BundleError, match="does not have one head for each of 3"):
        Heads.from_arrays({**arrays, "x.slope": np.ones(2)}, "x", dimension=0, columns=columns, tiers=3)
    broken = np.array([1.0, np.nan, 1.0])
    with pytest.raises(BundleError, match="calibration of x is not finite"):
        Heads.from_arrays({**arrays, "x.slope": broken}, "x", dimension=0, columns=columns, tiers=3)
    with pytest.raises(BundleError, match=r"lacks 'x\.projection\.mean'"):
        Heads.from_arrays(arrays, "x", dimension=8, columns=columns, tiers=3)


@pytest.mark.parametrize("recipe", [RECIPE, BOTH])
def test_a_tier_nobody_tried_does_not_touch_the_others(recipe: Recipe) -> None:
    examples = made_up_examples(600)
    holes = examples.acceptable.copy()
    holes[300:, 1] = np.nan
    whole, partly = fit_heads(examples, recipe), fit_heads(replace(examples, acceptable=holes), recipe)
    np.testing.assert_allclose(proba(whole, examples)[:, [0, 2]], proba(partly, examples)[:, [0, 2]], atol=1e-9)


def test_a_share_of_acceptable_answers_is_learned_as_a_share() -> None:
    examples = replace(made_up_examples(600), acceptable=np.full((600, 3), 0.25, np.float32))
    np.testing.assert_allclose(proba(fit_heads(examples, BOTH), examples), 0.25, atol=0.01)


def test_where_more_is_known_than_the_label_heads_are_fitted_to_that() -> None:
    examples = made_up_examples(600)
    expected = np.full((600, 3), np.nan, np.float32)
    expected[:, 2] = 0.5
    heads = fit_heads(replace(examples, expected=expected), RECIPE)
    np.testing.assert_allclose(proba(heads, examples)[:, 2], 0.5, atol=1e-6)
    np.testing.assert_allclose(proba(heads, examples)[:, :2], proba(fit_heads(examples, RECIPE), examples)[:, :2])


def test_calibration_pulls_overconfident_heads_to_the_frequencies() -> None:
    examples = made_up_examples(2000)
    loud = replace(fit_heads(examples, RECIPE), slope=np.full(3, 1.0), intercept=np.full(3, 2.0))
    said = loud.log_odds(examples.embedding, examples.features) + loud.intercept
    quiet = calibrated(replace(loud, intercept=np.zeros(3)), said, examples)
    gap = np.abs(sigmoid(said * quiet.slope + quiet.intercept).mean(axis=0) - examples.acceptable.mean(axis=0))
    assert gap.max() < 0.02


def test_trees_are_added_where_they_help_and_left_out_where_the_difference_is_noise() -> None:
    # What is acceptable hangs on a step in one feature, which a smooth kernel cannot follow; then on nothing.
    rng = np.random.default_rng(0)
    examples = made_up_examples(1500)
    features = rng.normal(size=examples.features.shape).astype(np.float32)
    steps = ((features[:, 0] > 0) ^ (features[:, 1] > 0)).astype(np.float32)
    stepwise = replace(examples, features=features, acceptable=np.tile(steps[:, None], 3))
    chosen = choose(stepwise, RECIPE, np.arange(1500))
    assert chosen.recipe.members == "kernel and trees"
    assert chosen.by_trees is not None
    assert chosen.by_trees.low > 0
    assert "trees help: they take +" in str(chosen)
    noise = replace(examples, features=features, acceptable=rng.integers(0, 2, (1500, 3)).astype(np.float32))
    assert choose(noise, RECIPE, np.arange(1500)).recipe.members == "kernel"


def test_a_tier_with_all_its_labels_in_one_group_is_cross_validated_without_them() -> None:
    # The prompts of the group are judged by heads that never saw the tier: nothing is said of it, rather than 0.
    examples = made_up_examples(400)
    acceptable = examples.acceptable.copy()
    acceptable[40:, 2] = np.nan
    groups = np.maximum(np.arange(400) - 39, 0)
    log_odds = cross_validated(replace(examples, acceptable=acceptable), RECIPE, groups, 4)
    assert np.isnan(log_odds[:40, 2]).all()
    assert np.isfinite(log_odds[:, :2]).all()


def test_a_prior_decides_where_there_are_few_labels_and_gives_way_to_many() -> None:
    public = made_up_examples(1500, seed=5)
    unseen = made_up_examples(800, seed=9)
    contrary = replace(unseen, acceptable=1 - unseen.acceptable)
    few, many = unseen.take(np.arange(30)), contrary.take(np.arange(700))
    prior = fit_prior(public, CONFIG.heads, seed=0).kernel
    judged = np.arange(700, 800)

    def error(examples: Examples, truth: Examples, prior: Kernel | None) -> float:
        choice = choose(examples, replace(RECIPE, prior=prior), np.arange(len(examples)), "kernel")
        unseen = cross_validated(examples, choice.recipe, np.arange(len(examples)), 10)
        heads = calibrated(fit_heads(examples, choice.recipe), unseen, examples)
        return float(((proba(heads, truth.take(judged)) - truth.acceptable[judged]) ** 2).mean())

    assert error(few, unseen, prior) < error(few, unseen, None)
    assert error(many, contrary, prior) < error(few, contrary, prior) - 0.1


def test_a_prior_that_misleads_is_left_out_and_one_that_helps_is_not() -> None:
    own = made_up_examples(700, seed=9)
    public = made_up_examples(1500, seed=5)
    right = fit_prior(public, CONFIG.heads, seed=0).kernel
    noise = np.random.default_rng(0).integers(0, 2, public.acceptable.shape).astype(np.float32)
    wrong = fit_prior(replace(public, acceptable=noise), CONFIG.heads.model_copy(update={"ridge": 0.01}), seed=0).kernel
    shares = {}
    for name, prior, labels in (("right", right, 150), ("wrong", wrong, 700)):
        rows = np.arange(labels)
        choice = choose(own.take(rows), replace(RECIPE, prior=prior), rows, "kernel")
        shares[name] = choice.recipe.prior_share
        assert f"prior: counted {choice.recipe.prior_share:.2f}" in str(choice)
    assert shares["wrong"] < 0.3 < 0.5 < shares["right"]


def test_half_of_the_prior_says_what_lies_between_none_and_all_of_it() -> None:
    own = made_up_examples(300, seed=9)
    prior = fit_prior(made_up_examples(500, seed=5), CONFIG.heads, seed=0).kernel
    none, half, all_of_it = (
        proba(fit_heads(own, replace(RECIPE, prior=prior, prior_share=share)), own) for share in (0.0, 0.5, 1.0)
    )
    inside = (np.minimum(none, all_of_it) > 0.011) & (np.maximum(none, all_of_it) < 0.989)  # beyond, all is one
    np.testing.assert_allclose(half[inside], (none + all_of_it)[inside] / 2)
    np.testing.assert_allclose(none, proba(fit_heads(own, RECIPE), own), atol=1e-9)


def test_a_prior_never_sees_the_prompts_of_the_log_itself_or_near_copies() -> None:
    public = made_up_examples(300)
    own = public.take(np.arange(100))
    near = replace(own, key=made_up_examples(100, seed=3).key, embedding=own.embedding + np.float32(0.001))
    for log in (own, near):
        left = without_copies(public, log, cosine=0.99)
        assert set(left.key) == set(public.key[100:])


def test_tiers_between_the_ends_of_the_ladder_take_what_lies_between_in_the_prior() -> None:
    examples = made_up_examples(400)
    prior = fit_heads(examples, replace(RECIPE, prior=fit_prior(examples, CONFIG.heads, seed=0).kernel)).prior
    assert prior is not None
    three = replace(prior, slope=np.ones(3), intercept=np.zeros(3)).log_odds(examples.embedding, examples.features)
    five = replace(prior, slope=np.ones(5), intercept=np.zeros(5)).log_odds(examples.embedding, examples.features)
    np.testing.assert_allclose(five[:, [0, 2, 4]], three)
    np.testing.assert_allclose(five[:, 1], (three[:, 0] + three[:, 1]) / 2)


def test_too_few_labels_say_what_is_missing() -> None:
    examples = made_up_examples(100)
    examples.acceptable[5:, 1] = np.nan
    with pytest.raises(LabelError, match="tier standard: 5 labelled prompts"):
        check_labels(examples, ["economy", "standard", "premium"], 30, "in all")


def test_a_single_outcome_says_what_is_missing() -> None:
    examples = made_up_examples(100)
    examples.acceptable[:, 2] = 1
    with pytest.raises(LabelError, match="tier premium: 100 labelled prompts in all, 100 acceptable and 0 not"):
        check_labels(examples, ["economy", "standard", "premium"], 30, "in all")
