"""Thresholds keep what they promise."""

from dataclasses import replace

import numpy as np
import pytest

from serving.classifier.bundle import CalibrationSet, Predictions
from serving.routing.promise import Outcomes, above_zero, choose, evidence, held, promised_thresholds
from tests.factories import TIERS


def test_the_rule_takes_the_highest_probability_less_weighted_cost() -> None:
    proba = np.array([[0.6, 0.8, 0.9]])
    costs = np.array([[1.0, 2.0, 4.0]])
    assert choose(proba, costs, 0.0).tolist() == [2]
    assert choose(proba, costs, 0.1).tolist() == [1]  # .5, .6, .5
    assert choose(proba, costs, 0.3).tolist() == [0]  # .3, .2, -.3


def test_ties_go_to_the_cheaper_tier() -> None:
    assert choose(np.array([[0.7, 0.7, 0.7]]), np.array([[1.0, 2.0, 3.0]]), 0.0).tolist() == [0]


def test_a_bet_against_the_truth_rarely_wins() -> None:
    values = np.random.default_rng(1).choice([-0.5, 0.5], size=(2000, 200))
    assert above_zero(values, -0.5, 0.05).mean() <= 0.06  # 5 % at most, give or take .5 of 2,000 draws


def test_a_bet_wins_nearly_as_often_as_the_test_of_a_normal_mean() -> None:
    """A mean 2.5 standard errors above zero: P(Z > 1.645 - 2.5) = .80. A stake that is set only once wins .52."""
    values = np.random.default_rng(1).choice([-0.5, 0.5], size=(1000, 2000), p=[0.472, 0.528])
    assert above_zero(values, -0.5, 0.05).mean() > 0.72


def test_a_bet_never_wins_on_values_that_are_never_above_zero() -> None:
    assert not above_zero(np.zeros((1, 50)), -0.5, 0.05).any()


def test_a_stake_is_what_would_win_what_is_missing() -> None:
    """One value of 1. For alpha .5 the stake is √(2 ln 2) = 1.18, which makes 2.18 of 1, and 2 were asked; for alpha .4
    it is √(2 ln 2.5) = 1.35, and 2.35 are less than 2.5."""
    assert above_zero(np.ones((1, 1)), -0.5, 0.5).tolist() == [True]
    assert above_zero(np.ones((1, 1)), -0.5, 0.4).tolist() == [False]


def test_the_walk_ends_before_the_first_that_does_not_hold() -> None:
    """Economy is never acceptable, the top always is: every μ that sends a prompt to economy retains nothing."""
    outcomes = Outcomes.of(np.tile([0.0, 1.0], (100, 1)), np.ones((100, 2)))
    economy, top = np.zeros(100, np.int8), np.ones(100, np.int8)
    assert held(outcomes, np.stack([top, top, economy, top]), 0.5, 0.05) == 2
    assert held(outcomes, np.stack([economy, top]), 0.5, 0.05) == 0
    assert held(outcomes, np.stack([top] * 200), 0.5, 0.05) == 200


def made_up_calibration(n: int, seed: int) -> CalibrationSet:
    """Two kinds of prompts; the predictions know the kind, the outcomes are drawn."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n) < 0.4
    proba = np.where(hard[:, None], [0.3, 0.5, 0.9], [0.93, 0.94, 0.95])
    predicted = Predictions(proba.astype(np.float32), np.full((n, 3), 200, np.float32))
    return CalibrationSet(
        predicted=predicted,
        fallback=predicted,
        input_tokens=np.full(n, 100, np.float32),
        acceptable=(rng.random((n, 3)) < proba).astype(np.float32),
        weight=np.full((n, 3), np.nan, np.float32),
        max_weight=10.0,
    )


def true_quality(mu: float) -> float:
    proba = np.array([[0.3, 0.5, 0.9], [0.93, 0.94, 0.95]])
    costs = np.array([[tier.input_pico_usd * 100 + tier.output_pico_usd * 200 for tier in TIERS]] * 2) / 1e12
    chosen = proba[np.arange(2), choose(proba, costs, mu)]
    return float([0.4, 0.6] @ chosen / ([0.4, 0.6] @ proba[:, -1]))


def test_a_promise_fails_no_more_often_than_it_says() -> None:
    failures = found = 0
    for seed in range(200):
        (threshold,) = promised_thresholds(made_up_calibration(600, seed), TIERS, [0.95])
        if threshold.mu is not None:
            found += 1
            failures += true_quality(threshold.mu) < 0.95
    assert found > 100
    assert failures <= 0.05 * 200


def test_a_promise_is_not_bought_by_always_taking_the_top() -> None:
    (threshold,) = promised_thresholds(made_up_calibration(3000, 0), TIERS, [0.95])
    assert threshold.mu is not None
    assert true_quality(threshold.mu) == pytest.approx(0.95 + 0.0, abs=0.05)
    assert choose(np.array([[0.93, 0.94, 0.95]]), np.array([[0.0001, 0.0009, 0.0045]]), threshold.mu).tolist() == [0]


def test_too_few_prompts_are_refused_with_the_number_it_would_take() -> None:
    (threshold,) = promised_thresholds(made_up_calibration(40, 0), TIERS, [0.99])
    assert threshold.mu is None
    assert threshold.refused is not None
    assert threshold.labels_needed is not None
    assert threshold.labels_needed > 40


def test_a_target_out_of_reach_is_refused_without_a_number() -> None:
    calibration = made_up_calibration(2000, 0)
    calibration.predicted.proba[:] = [0.9, 0.1, 0.1]  # sends everything to economy
    (threshold,) = promised_thresholds(calibration, TIERS, [0.99])
    assert (threshold.mu, threshold.labels_needed) == (None, None)
    assert "did not show 99%" in str(threshold.refused)


def logged(calibration: CalibrationSet, policy: list[float], max_weight: float = 10.0) -> CalibrationSet:
    """The same prompts as a log shows them: one answer each, drawn by `policy`, with its clipped propensity."""
    n = len(calibration.input_tokens)
    seen = np.eye(3, dtype=bool)[np.random.default_rng(0).choice(3, size=n, p=policy)]
    return replace(
        calibration,
        acceptable=np.where(seen, calibration.acceptable, np.nan).astype(np.float32),
        weight=np.where(seen, np.minimum(1 / np.array(policy), max_weight), np.nan).astype(np.float32),
        max_weight=max_weight,
    )


def test_logged_propensities_stand_in_for_the_answers_nobody_saw() -> None:
    (threshold,) = promised_thresholds(logged(made_up_calibration(16_000, 3), [0.4, 0.2, 0.4]), TIERS, [0.90])
    assert threshold.mu is not None
    assert true_quality(threshold.mu) >= 0.90


def test_a_prompt_that_goes_to_the_top_says_nothing_against_the_policy() -> None:
    """Two tiers, a target of .9, one outcome logged of each prompt. Sent to the top, a prompt is worth .1 × its weight
    × acceptable there, and 0 where the log shows economy; sent to economy, what economy got less .9 × the top's."""
    nan = np.nan
    acceptable = np.array([[nan, 1.0], [1.0, nan], [nan, 0.0]])
    weight = evidence(acceptable, np.array([[nan, 4.0], [2.0, nan], [nan, 4.0]]))
    choices = np.array([[1, 1, 1], [0, 0, 0]], np.int8)
    to_top, to_economy = Outcomes.of(acceptable, weight).margins(choices, 0.9)
    assert to_top == pytest.approx([0.4, 0.0, 0.0])
    assert to_economy == pytest.approx([-0.9, 2 - 0.9, -0.9 * (1 - 4)])


def test_a_top_tier_that_is_hardly_explored_does_not_make_a_promise_cheap() -> None:
    """Its weights are clipped from 50 to 10: the top tier must then count as better than it looks, not as worse."""
    rarely = logged(made_up_calibration(8000, 3), [0.96, 0.02, 0.02])
    (threshold,) = promised_thresholds(rarely, TIERS, [0.95])
    assert threshold.mu is None or true_quality(threshold.mu) >= 0.95


def test_a_propensity_beside_outcomes_for_every_tier_changes_nothing() -> None:
    plain = made_up_calibration(2000, 1)
    weighted = replace(plain, weight=np.where(np.arange(3) == 0, 5.0, np.nan) * np.ones((2000, 1), np.float32))
    assert promised_thresholds(weighted, TIERS, [0.9, 0.95]) == promised_thresholds(plain, TIERS, [0.9, 0.95])


def test_answers_without_propensity_promise_nothing() -> None:
    calibration = made_up_calibration(500, 0)
    calibration.acceptable[:, 1] = np.nan
    (threshold,) = promised_thresholds(calibration, TIERS, [0.90])
    assert threshold.mu is None
    assert "propensity" in str(threshold.refused)


def test_tiers_without_prices_cost_a_step_of_the_ladder() -> None:
    tiers = [tier.model_copy(update={"input_pico_usd": None}) for tier in TIERS]
    (threshold,) = promised_thresholds(made_up_calibration(3000, 0), tiers, [0.95])
    assert threshold.mu is not None
    assert 0 < threshold.mu <= 10
