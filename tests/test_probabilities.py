"""AUC, Brier score and debiased calibration error, against numbers worked by hand; and their intervals."""

import numpy as np
import pytest

from training.evaluation.intervals import Estimate, Resamples, estimated
from training.evaluation.probabilities import auc, bins_of, brier, squared_calibration_error

ONE = np.ones(4)


def test_auc_counts_pairs_and_half_of_ties() -> None:
    # Good: .8, .4; bad: .4, .2. Pairs: .8 wins twice, .4 ties once and wins once: 3.5 of 4.
    assert auc(np.array([0.8, 0.4, 0.4, 0.2]), np.array([1.0, 1, 0, 0]), ONE) == pytest.approx(0.875)


def test_auc_weighs_prompts() -> None:
    # The tie counts three times on the bad side: (3 + .5·3 + 1 + 1) pairs of 2·4: good .8 beats 4, good .4 1.5 + 1.
    proba, y = np.array([0.8, 0.4, 0.4, 0.2]), np.array([1.0, 1, 0, 0])
    assert auc(proba, y, np.array([1.0, 1, 3, 1])) == pytest.approx((4 + 1.5 + 1) / 8)


def test_auc_of_one_kind_of_outcome_is_not_defined() -> None:
    assert np.isnan(auc(np.array([0.8, 0.4, 0.4, 0.2]), np.ones(4), ONE))


def test_brier_is_the_mean_squared_gap() -> None:
    assert brier(np.array([0.8, 0.4, 0.4, 0.2]), np.array([1.0, 1, 0, 0]), ONE) == pytest.approx(
        (0.04 + 0.36 + 0.16 + 0.04) / 4
    )


def test_calibration_error_takes_off_the_noise_of_a_bin_by_hand() -> None:
    # One bin of four at .5 with three good ones: the gap is -.25, its square .0625. Gaps -.5, -.5, -.5, .5: their
    # second moment .25, less .0625 is .1875, over n - 1 = 3 is .0625. What is left is nothing.
    proba, y = np.full(4, 0.5), np.array([1.0, 1, 1, 0])
    assert squared_calibration_error(proba, y, ONE, np.zeros(4, int)) == pytest.approx(0, abs=1e-12)


def test_calibration_error_of_probabilities_that_are_off_is_how_far_they_are_off() -> None:
    rng = np.random.default_rng(0)
    true = rng.random(20_000)
    y = (rng.random(20_000) < true).astype(float)
    off = true + 0.1
    square = squared_calibration_error(off, y, np.ones(20_000), bins_of(off))
    assert square == pytest.approx(0.01, abs=0.0015)


def test_perfect_probabilities_score_zero_on_average_however_few_there_are() -> None:
    """200 draws of 60 prompts; a plain squared error would average 15 bins × variance .17 / 4 a bin = .04."""
    rng = np.random.default_rng(1)
    squares = []
    for _ in range(200):
        true = rng.random(60)
        y = (rng.random(60) < true).astype(float)
        squares.append(squared_calibration_error(true, y, np.ones(60), bins_of(true)))
    assert abs(np.mean(squares)) < 3 * np.std(squares) / 200**0.5
    assert np.mean(squares) < 0.01


def test_bins_are_equally_filled_and_keep_equal_probabilities_together() -> None:
    assert np.bincount(bins_of(np.arange(30) / 30)).tolist() == [2] * 15
    assert len(np.unique(bins_of(np.full(30, 0.3)))) == 1


def test_groups_are_drawn_whole() -> None:
    groups = np.array([5, 5, 5, 9, 9, 2])
    for weight in list(Resamples.of(groups))[:50]:
        assert weight[0] == weight[1] == weight[2]
        assert weight[3] == weight[4]
        assert weight[0] + weight[3] + weight[5] == 3


def test_an_interval_of_a_mean_is_that_of_theory() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=400)
    (mean,) = estimated(lambda weight: np.array([weight @ x / weight.sum()]), Resamples.of(np.arange(400)))
    assert mean.value == pytest.approx(x.mean())
    assert mean.interval is not None
    half = 1.96 * x.std() / 20
    assert mean.interval == pytest.approx((x.mean() - half, x.mean() + half), abs=0.02)


def test_repeats_of_one_prompt_make_an_interval_no_shorter() -> None:
    rng = np.random.default_rng(4)
    x = np.repeat(rng.normal(size=40), 10)
    widths = []
    for groups in (np.arange(400), np.repeat(np.arange(40), 10)):
        (mean,) = estimated(lambda weight: np.array([weight @ x / weight.sum()]), Resamples.of(groups))
        assert mean.interval is not None
        widths.append(mean.interval[1] - mean.interval[0])
    assert widths[1] == pytest.approx(widths[0] * 10**0.5, rel=0.2)


def test_the_interval_of_a_debiased_figure_is_centred_on_it() -> None:
    rng = np.random.default_rng(5)
    true = rng.random(300)
    y = (rng.random(300) < true).astype(float)
    bins = bins_of(true)

    def statistic(weight: np.ndarray) -> np.ndarray:
        return np.array([squared_calibration_error(true, y, weight, bins)])

    (plain,), (moved,) = (
        estimated(statistic, Resamples.of(np.arange(300)), recentre=recentre) for recentre in (False, True)
    )
    assert plain.interval is not None
    assert moved.interval is not None
    assert moved.value is not None
    assert np.mean(plain.interval) > np.mean(moved.interval)
    assert moved.interval[0] < moved.value < moved.interval[1]


def test_what_is_not_defined_has_no_interval() -> None:
    assert estimated(lambda _: np.array([np.nan]), Resamples.of(np.arange(30))) == [Estimate(None, None)]


def test_a_figure_that_many_resamples_lack_has_no_interval() -> None:
    # Defined only where the first prompt was drawn: in 1 - 1/e of the resamples.
    (half,) = estimated(lambda w: np.array([1.0 if w[0] else np.nan]), Resamples.of(np.arange(30)))
    assert half == Estimate(1.0, None)


def test_fewer_than_ten_groups_show_nothing_of_other_prompts() -> None:
    nine = Resamples.of(np.repeat(np.arange(9), 50))
    (mean,) = estimated(lambda weight: np.array([weight.mean()]), nine)
    assert mean == Estimate(1.0, None)


def test_a_slice_is_drawn_as_it_is_in_the_whole() -> None:
    resamples = Resamples.of(np.arange(40))
    for whole, part in zip(resamples, resamples.take(np.arange(7)), strict=True):
        assert whole[:7].tolist() == part.tolist()
