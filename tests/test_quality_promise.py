"""The measure of a promise on cases that can be worked by hand."""

import numpy as np
import pytest

from tests.quality.promise import PromiseRate, Rate, explored, promise_rates
from tests.quality.promise_plot import promise_figure

COSTS = np.tile([1.0, 10.0], (1000, 1))
RIGHT = np.array([[1.0, 1.0]] * 600 + [[0.0, 1.0]] * 300 + [[0.0, 0.0]] * 100)
"""600 prompts are answered by both tiers, 300 by the top alone, 100 by neither."""


def test_perfect_scores_serve_as_the_oracle_does_and_never_fail() -> None:
    """They send the 300 to the top: all is retained, at a cost of (700 × 1 + 300 × 10) / 10,000. The next larger μ
    sends nobody there and retains 600 / 900."""
    for rate in promise_rates(RIGHT, COSTS, RIGHT, sizes=[200, 500], targets=[0.9, 0.95], splits=20):
        assert (rate.promised.value, rate.failed_on_rest.count, rate.failed_on_table.count) == (1.0, 0, 0)
        assert (rate.oracle_share, rate.oracle_cost) == (pytest.approx(0.3), pytest.approx(0.37))
        assert rate.top_share.tolist() == pytest.approx([0.3] * 20)
        assert rate.cost.tolist() == pytest.approx([0.37] * 20)
        assert rate.excess == pytest.approx(0.0)


def test_scores_that_prefer_the_worse_tier_promise_nothing() -> None:
    """Everything goes to economy, at any μ: two thirds are retained."""
    wrong = np.tile([0.9, 0.5], (1000, 1))
    (rate,) = promise_rates(wrong, COSTS, RIGHT, sizes=[500], targets=[0.9], splits=10)
    assert (rate.promised.count, rate.failed_on_rest.count, rate.failed_on_table.count) == (0, 0, 0)
    assert (rate.oracle_share, rate.excess) == (None, None)
    assert rate.top_share.tolist() == [0.0] * 10


def test_outcomes_that_are_always_good_still_take_a_number_of_rows_to_show_it() -> None:
    """At a target of .99 a row wins at most .75 / .99 × .01, and nine in ten do: e^(200 × .9 × .0076) = 3.9, not 20.
    Nor should it: one unseen failure in a hundred rows would break the promise."""
    (rate,) = promise_rates(RIGHT, COSTS, RIGHT, sizes=[200], targets=[0.99], splits=5)
    assert rate.promised.count == 0


def test_a_target_that_economy_retains_needs_no_call_to_the_top() -> None:
    (rate,) = promise_rates(RIGHT, COSTS, RIGHT, sizes=[500], targets=[0.5], splits=10)
    assert (rate.oracle_share, rate.oracle_cost) == (0.0, pytest.approx(0.1))
    assert rate.top_share.tolist() == [0.0] * 10


def test_an_ideal_test_is_as_cautious_as_the_noise_of_its_rows_makes_it() -> None:
    """Economy alone retains 600 / 900, more than .66, by a mean margin of .6 × .34 − .3 × .66 = .006 with a standard
    deviation of .447: 500 rows leave 1.645 × .447 / √500 = .033 of noise, so the 300 still go to the top. At .9 their
    margins are .1 in nine rows of ten, .09 ± .03: 200 rows are enough."""
    (close,) = promise_rates(RIGHT, COSTS, RIGHT, sizes=[500], targets=[0.66], splits=2)
    assert (close.oracle_share, close.ideal_share) == (0.0, pytest.approx(0.3))
    assert close.ideal_excess == pytest.approx(0.3)
    (clear,) = promise_rates(RIGHT, COSTS, RIGHT, sizes=[200], targets=[0.9], splits=2)
    assert clear.ideal_excess == pytest.approx(0.0)
    wrong = np.tile([0.9, 0.5], (1000, 1))
    (never,) = promise_rates(wrong, COSTS, RIGHT, sizes=[500], targets=[0.9], splits=2)
    assert (never.ideal_share, never.ideal_excess) == (1.0, None)


def scores_and_outcomes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of different certainty, and outcomes drawn by them."""
    rng = np.random.default_rng(3)
    proba = np.stack([rng.uniform(0.3, 0.9, n), np.full(n, 0.9)], axis=1)
    return proba, (rng.random((n, 2)) < proba).astype(float)


@pytest.mark.parametrize("exploration", [None, 0.4])
def test_a_promise_fails_in_no_more_splits_than_it_says(exploration: float | None) -> None:
    proba, acceptable = scores_and_outcomes(2000)
    costs = np.tile([1.0, 10.0], (2000, 1))
    propensity = None if exploration is None else explored(proba, costs, 0.02, exploration)
    (rate,) = promise_rates(proba, costs, acceptable, propensity, sizes=[500], targets=[0.9], splits=200, redrawn=True)
    assert rate.promised.count > 50
    assert rate.failed_on_table.value <= 0.08  # 5 % and two standard errors of 200 splits
    assert rate.excess is not None
    assert rate.excess > 0


def test_the_same_seed_gives_the_same_rates() -> None:
    proba, acceptable = scores_and_outcomes(1000)
    first, again, other = (
        promise_rates(proba, COSTS, acceptable, sizes=[300], targets=[0.9], splits=5, seed=seed)[0]
        for seed in (1, 1, 2)
    )
    assert first.top_share.tolist() == again.top_share.tolist()
    assert first.top_share.tolist() != other.top_share.tolist()


def test_a_count_of_none_leaves_an_interval_above_zero() -> None:
    """None of 500: p with (1 - p)^500 = .025 is 1 - .025^(1/500) = .00735."""
    assert Rate(0, 500).interval == (0.0, pytest.approx(0.00735, abs=1e-5))
    assert Rate(500, 500).interval == (pytest.approx(0.99265, abs=1e-5), 1.0)


def test_a_small_rest_may_fail_more_often_than_the_promise() -> None:
    """500 rows calibrate and 500 judge: 1.645 / √2 = 1.163, and P(Z > 1.163) = .1224."""
    (rate,) = promise_rates(RIGHT, COSTS, RIGHT, sizes=[500], targets=[0.9], splits=2)
    assert (rate.rows, rate.rest_rows) == (500, 500)
    assert rate.noise_allows == pytest.approx(0.1224, abs=1e-4)


def test_exploration_draws_every_tier() -> None:
    """Of two tiers, with .2: .1 for either, and .8 more for the one that the policy takes."""
    proba = np.array([[0.5, 0.9], [0.9, 0.5]])
    assert explored(proba, COSTS[:2], 0.0, 0.2) == pytest.approx(np.array([[0.1, 0.9], [0.9, 0.1]]))


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="leave none of 1000"):
        promise_rates(RIGHT, COSTS, RIGHT, sizes=[1000])
    with pytest.raises(ValueError, match="must be known"):
        promise_rates(RIGHT, COSTS, np.where(RIGHT == 1, np.nan, RIGHT), sizes=[10])


def test_the_picture_has_a_panel_for_each_table_with_the_oracle_in_it() -> None:
    rates = promise_rates(RIGHT, COSTS, RIGHT, sizes=[200, 500], targets=[0.95], splits=5)
    figure = promise_figure({"one": rates, "two": rates}, 0.95)
    assert [panel.get_title() for panel in figure.axes] == ["one", "two"]
    heights = [float(np.asarray(line.get_ydata())[0]) for line in figure.axes[0].lines]
    assert heights == pytest.approx([0.3, 0.3, 0.37, 0.37])  # the median of the splits, the oracle; share, then cost
    with pytest.raises(ValueError, match="one has no rates"):
        promise_figure({"one": rates}, 0.9)


def test_rates_come_for_each_target_and_size() -> None:
    rates: list[PromiseRate] = promise_rates(RIGHT, COSTS, RIGHT, sizes=[50, 100], targets=[0.9, 0.95], splits=2)
    assert [(rate.target, rate.rows) for rate in rates] == [(0.9, 50), (0.9, 100), (0.95, 50), (0.95, 100)]
