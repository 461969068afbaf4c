"""Paths, APGR, CPT and cost at quality, against numbers worked by hand and RouteLLM's random and optimal routers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving.routing.promise import choose
from training.evaluation.baselines.catalogue import Candidate, ranked, scored
from training.evaluation.paths import Path, fixed_path, path_of
from training.evaluation.ranking import apgr, call_performance_threshold, cheapest_at


def share_and_quality(path: Path, scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one = np.ones(len(scores))
    return path.along(np.broadcast_to([0.0, 1.0], scores.shape)).totals(one), path.along(scores).totals(one)


def of_two(candidate: Candidate) -> Path:
    assert candidate.by_share is not None
    return candidate.by_share


# Four prompts; the strong model is right on all but the last, the weak one only on the second and the last.
OUTCOMES = np.array([[0, 1], [1, 1], [0, 1], [1, 0]], float)


def test_a_curve_goes_up_where_the_strong_model_helps_first() -> None:
    # Order by score: prompts 0, 1, 2, 3. Right answers: 2 (none strong), 3, 3, 4, 3.
    share, quality = share_and_quality(of_two(scored("x", np.array([4.0, 3, 2, 1]), 2)), OUTCOMES)
    np.testing.assert_allclose(share, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(quality, [0.5, 0.75, 0.75, 1, 0.75])


def test_apgr_is_the_area_over_the_weak_line_by_hand() -> None:
    # Trapezoids over the curve above: (.5+.75)/8 + (.75+.75)/8 + (.75+1)/8 + (1+.75)/8 = 6.25/8 = .78125.
    # Weak .5, strong .75: (.78125 - .5) / .25 = 1.125.
    share, quality = share_and_quality(of_two(scored("x", np.array([4.0, 3, 2, 1]), 2)), OUTCOMES)
    assert apgr(share, quality, 0.5, 0.75) == pytest.approx(1.125)


def test_cpt_is_the_first_share_that_recovers_enough_by_hand() -> None:
    # Half of the gap is .625, half-way up the first piece: .125. Four fifths are .7, .8 of the first piece: .2.
    share, quality = share_and_quality(of_two(scored("x", np.array([4.0, 3, 2, 1]), 2)), OUTCOMES)
    assert call_performance_threshold(share, quality, 0.5, 0.75, 0.5) == pytest.approx(0.125)
    assert call_performance_threshold(share, quality, 0.5, 0.75, 0.8) == pytest.approx(0.2)


def test_scores_that_repeat_are_one_straight_piece_whatever_the_order_of_rows() -> None:
    scores = np.array([1.0, 1, 0, 0])  # the upper two prompts: from .5 to .75 with half the calls
    for order in ([0, 1, 2, 3], [1, 0, 3, 2]):
        share, quality = share_and_quality(of_two(scored("x", scores[order], 2)), OUTCOMES[order])
        np.testing.assert_allclose(share, [0, 0.5, 1])
        np.testing.assert_allclose(quality, [0.5, 0.75, 0.75])


def test_without_a_better_strong_model_nothing_is_recovered_and_nothing_is_claimed() -> None:
    share, quality = np.array([0.0, 1.0]), np.array([0.6, 0.6])
    assert np.isnan(apgr(share, quality, 0.6, 0.6))
    assert np.isnan(call_performance_threshold(share, quality, 0.6, 0.5, 0.5))


def pair_outcomes(n: int = 2000) -> NDArray[np.float64]:
    """Right and wrong answers in about the shares of RouteLLM's MMLU table: weak .68, strong .81."""
    rng = np.random.default_rng(7)
    return (rng.random((n, 2)) < [0.68, 0.81]).astype(float)


def test_random_is_the_published_random_row() -> None:
    """Ong et al. 2024, arXiv:2406.18665v4, give the random router on MMLU: APGR .500, CPT50 50.07 %, CPT80 79.93 %.

    Theirs are draws at eleven shares; ours is what such draws average to.
    """
    outcomes = pair_outcomes()
    weak, strong = outcomes.mean(axis=0)
    share, quality = share_and_quality(of_two(scored("random", np.zeros(len(outcomes)), 2)), outcomes)
    assert apgr(share, quality, weak, strong) == pytest.approx(0.500, abs=1e-12)
    assert call_performance_threshold(share, quality, weak, strong, 0.5) == pytest.approx(0.5007, abs=0.001)
    assert call_performance_threshold(share, quality, weak, strong, 0.8) == pytest.approx(0.7993, abs=0.001)


def test_the_oracle_is_the_published_optimal_router() -> None:
    """RouteLLM plots, at each tenth of strong calls, weak accuracy + min(calls, answers only the strong gets right).

    Where calls are left over it stops; its curve ends above the strong model. Ours goes on to all strong, so the two
    agree up to where the strong model begins to do harm.
    """
    outcomes = pair_outcomes()
    share, quality = share_and_quality(
        of_two(ranked("oracle", outcomes, np.ones_like(outcomes) * [0.0, 1.0])), outcomes
    )
    weak = outcomes[:, 0].mean()
    gain = ((outcomes[:, 0] == 0) & (outcomes[:, 1] == 1)).mean()
    harm = ((outcomes[:, 0] == 1) & (outcomes[:, 1] == 0)).mean()
    for calls in np.arange(0, 1 - harm, 0.1):
        assert np.interp(calls, share, quality) == pytest.approx(weak + min(calls, gain), abs=1e-9)


def test_cost_at_quality_lies_between_two_points_of_the_curve() -> None:
    # Quality .9 is half-way between .8 (cost .2, share 0) and 1 (cost .6, share .5).
    cost, share = cheapest_at(np.array([0.8, 1.0]), np.array([0.2, 0.6]), np.array([0.0, 0.5]), 0.9)
    assert (cost, share) == pytest.approx((0.4, 0.25))


def test_cost_at_quality_takes_the_cheapest_place_of_a_curve_that_goes_up_and_down() -> None:
    quality, cost = np.array([0.5, 0.9, 0.7, 1.0]), np.array([0.1, 0.3, 0.2, 1.0])
    # .9 is reached at cost .3, and again at 2/3 of the last piece, at .733.
    assert cheapest_at(quality, cost, np.zeros(4), 0.9)[0] == pytest.approx(0.3)
    # .7 is reached half-way up the first piece, at .2, and at the third point, at .2 as well.
    assert cheapest_at(quality, cost, np.zeros(4), 0.7)[0] == pytest.approx(0.2)


def test_a_quality_that_is_never_reached_has_no_cost() -> None:
    assert np.isnan(cheapest_at(np.array([0.5, 0.8]), np.array([0.1, 1.0]), np.zeros(2), 0.9)).all()


def test_a_path_skips_a_tier_that_is_never_worth_its_price() -> None:
    # Values .1, .2, .9 at costs 0, 1, 2: the way from 0 to 2 gains .4 a unit, by tier 1 only .1.
    path = path_of(np.array([[0.1, 0.2, 0.9]]), np.array([[0.0, 1, 2]]))
    assert (path.before.tolist(), path.after.tolist()) == ([0], [2])


def test_a_path_starts_at_the_better_of_two_cheapest_tiers() -> None:
    assert path_of(np.array([[0.1, 0.2]]), np.array([[1.0, 1.0]])).start.tolist() == [1]


def test_a_mean_along_a_path_is_over_the_evidence_for_it() -> None:
    # Two prompts, each tried at one tier only, with inverse propensity 2: the first wrong at the weak tier, the second
    # right at the strong one. All weak: 0 of 2. Both moved: 2 of 2. After the first move nothing tried is left to see.
    outcomes, evidence = np.array([[0.0, 0], [0, 2]]), np.array([[2.0, 0], [0, 2]])
    path = of_two(scored("x", np.array([2.0, 1]), 2))
    means = path.mean_along(outcomes, evidence).totals(np.ones(2))
    assert means[0] == 0
    assert np.isnan(means[1])
    assert means[2] == 1


def test_a_fixed_path_never_moves() -> None:
    np.testing.assert_allclose(fixed_path(4, 1).along(OUTCOMES).totals(np.ones(4)), [0.75])


@given(seed=st.integers(0, 10_000), k=st.integers(2, 5))
def test_a_path_holds_what_the_rule_chooses_at_every_mu(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    value, cost = rng.random((6, k)), rng.random((6, k))
    path = path_of(value, cost)
    one = np.ones(6)
    totals = list(zip(path.along(value).totals(one), path.along(cost).totals(one), strict=True))
    for mu in rng.exponential(2, size=10) * rng.choice([-1, 1], size=10):
        choice = choose(value, cost, float(mu))
        chosen = value[np.arange(6), choice].mean(), cost[np.arange(6), choice].mean()
        assert any(np.allclose(chosen, point) for point in totals)


@given(seed=st.integers(0, 10_000))
def test_weights_count_a_prompt_as_often_as_they_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    value, cost, outcome = rng.random((5, 3)), rng.random((5, 3)), rng.random((5, 3))
    weight = rng.integers(0, 4, size=5)
    weight[0] += 1
    rows = np.repeat(np.arange(5), weight)
    weighted = path_of(value, cost).along(outcome).totals(weight.astype(float))
    repeated = path_of(value[rows], cost[rows]).along(outcome[rows]).totals(np.ones(len(rows)))
    # Moves of a prompt that counts nothing are steps without a change.
    assert np.allclose(np.unique(weighted.round(9)), np.unique(repeated.round(9)))
