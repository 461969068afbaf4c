"""A kernel regression from plain arrays, and how it is fitted."""

import numpy as np
import pytest

from serving.classifier.kernel import Kernel, Scale, similarity
from serving.errors import BundleError
from training.config import HeadSettings
from training.fitting.kernel import fit_kernel, fit_scale


def settings(**changes: float) -> HeadSettings:
    return HeadSettings.model_validate({"landmarks": 200, "gamma": 0.1, "embedding_scale": 1.0, "ridge": 0.1} | changes)


def test_similarity_worked_by_hand() -> None:
    # Squared distances 0, 25 and 4: exp(0), exp(-2.5), exp(-.4).
    found = similarity(np.array([[3.0, 4.0]]), np.array([[3.0, 4.0], [0.0, 0.0], [3.0, 2.0]]), gamma=0.1)
    np.testing.assert_allclose(found, [[1, np.exp(-2.5), np.exp(-0.4)]], rtol=1e-6)


def test_a_kernel_of_two_landmarks_worked_by_hand() -> None:
    # One feature, mean 10, per unit .5: 14 becomes 2. Landmarks at 2 and 0: similarities 1 and exp(-.4).
    scale = Scale(0.0, np.array([10.0], np.float32), np.array([0.5], np.float32))
    kernel = Kernel(
        scale, 0.1, np.array([[2.0], [0.0]], np.float32), np.array([[0.3], [1.0]]), intercept=np.array([0.25])
    )
    found = kernel(None, np.array([[14.0]], np.float32))
    np.testing.assert_allclose(found, [[0.3 + np.exp(-0.4) + 0.25]], rtol=1e-6)


def test_features_are_held_within_three_deviations_and_constant_ones_left_out() -> None:
    features = np.stack([np.arange(10.0), np.full(10, 7.0)], axis=1).astype(np.float32)
    scale = fit_scale(features, embedding=2.0)
    scaled = scale(np.array([[1.0, 0.0]], np.float32), np.array([[1e6, 8.0]], np.float32))
    np.testing.assert_allclose(scaled, [[2, 0, 3, 0]])


def test_with_a_landmark_for_every_prompt_it_is_kernel_ridge_regression() -> None:
    rng = np.random.default_rng(0)
    F = rng.normal(size=(60, 3)).astype(np.float32)
    y = rng.random(60)
    kernel = fit_kernel(None, F, y[:, None], np.ones((60, 1)), settings(ridge=2.0), seed=0)
    X = kernel.scale(None, F)
    K = similarity(X, X, 0.1).astype(np.float64)
    inner, ones = np.linalg.inv(K + 2 * np.eye(60)), np.ones(60)
    mean = (ones @ inner @ y) / (ones @ inner @ ones)  # the intercept is not penalised
    expected = mean + K @ inner @ (y - mean)
    np.testing.assert_allclose(kernel(None, F)[:, 0], expected, atol=5e-4)


def test_an_output_is_fitted_to_its_own_labels_only() -> None:
    rng = np.random.default_rng(0)
    F = rng.normal(size=(300, 3)).astype(np.float32)
    target = np.stack([F[:, 0] > 0, F[:, 0] < 0], axis=1).astype(float)
    weight = np.ones((300, 2))
    weight[150:, 1] = 0
    target[150:, 1] = 99  # never seen
    whole = fit_kernel(None, F, target, np.ones((300, 2)), settings(), seed=0)
    partly = fit_kernel(None, F, target, weight, settings(), seed=0)
    np.testing.assert_allclose(partly(None, F)[:, 0], whole(None, F)[:, 0])
    assert np.corrcoef(partly(None, F)[:, 1], F[:, 0] < 0)[0, 1] > 0.8


def test_twice_the_weight_is_twice_the_prompt() -> None:
    rng = np.random.default_rng(0)
    F, y = rng.normal(size=(100, 2)).astype(np.float32), rng.random((100, 1))
    rows = np.concatenate([np.arange(100), np.arange(50)])
    weight = np.ones((100, 1))
    weight[:50] = 2
    scale = fit_scale(F, 0.0)
    weighted = fit_kernel(None, F, y, weight, settings(), seed=0)
    repeated = fit_kernel(None, F[rows], y[rows], np.ones((150, 1)), settings(), seed=0)
    # The scales differ a little, since the features of the first half count twice in the second.
    assert np.abs(scale.mean - repeated.scale.mean).max() < 0.2
    assert np.abs(weighted(None, F) - repeated(None, F)).mean() < 0.05


def test_without_anything_similar_the_mean_is_predicted() -> None:
    rng = np.random.default_rng(0)
    F, y = rng.normal(size=(100, 2)).astype(np.float32), 0.7 + 0.1 * rng.normal(size=(100, 1))
    kernel = fit_kernel(None, F, y, np.ones((100, 1)), settings(gamma=50.0, ridge=1e3), seed=0)
    np.testing.assert_allclose(kernel(None, np.full((1, 2), 100.0, np.float32)), y.mean(), atol=1e-2)


def test_a_log_of_a_few_different_prompts_is_fitted() -> None:
    # Most landmarks are the same twenty prompts again, so that their similarities have no inverse.
    rng = np.random.default_rng(0)
    F, y = rng.integers(0, 20, (1000, 1)).astype(np.float32), rng.random((1000, 1))
    kernel = fit_kernel(None, F, y, np.ones((1000, 1)), HeadSettings(), seed=0)
    assert 0.4 < kernel(None, F).mean() < 0.6


def test_many_prompts_are_predicted_block_by_block_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    E, F = rng.normal(size=(20, 4)).astype(np.float32), rng.normal(size=(20, 3)).astype(np.float32)
    kernel = fit_kernel(E, F, rng.random((20, 2)), np.ones((20, 2)), settings(), seed=0)
    whole = kernel(E, F)
    monkeypatch.setattr("serving.classifier.kernel._BLOCK", 7)  # thousands of prompts in a test of twenty
    np.testing.assert_allclose(kernel(E, F), whole, atol=1e-5)
    assert kernel(E[:0], F[:0]).shape == (0, 2)


def test_a_large_log_is_fitted_block_by_block_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    F, y = rng.normal(size=(100, 2)).astype(np.float32), rng.random((100, 1))
    whole = fit_kernel(None, F, y, np.ones((100, 1)), settings(), seed=0)
    monkeypatch.setattr("training.fitting.kernel._BLOCK", 7)  # a log of millions of rows in a test of a hundred
    np.testing.assert_allclose(
        fit_kernel(None, F, y, np.ones((100, 1)), settings(), seed=0)(None, F), whole(None, F), atol=1e-5
    )


def test_a_kernel_survives_being_stored_and_a_wrong_one_is_refused() -> None:
    rng = np.random.default_rng(0)
    E, F = rng.normal(size=(50, 4)).astype(np.float32), rng.normal(size=(50, 3)).astype(np.float32)
    kernel = fit_kernel(E, F, rng.random((50, 2)), np.ones((50, 2)), settings(), seed=0)
    arrays = kernel.to_arrays("x")
    again = Kernel.from_arrays(arrays, "x", dimension=4, columns=3, outputs=2)
    np.testing.assert_array_equal(again(E, F), kernel(E, F))
    for change in ({"dimension": 5}, {"columns": 4}, {"outputs": 3}):
        with pytest.raises(BundleError, match=r"heads\.npz: x\.\w+ is not an array of shape"):
            Kernel.from_arrays(arrays, "x", **({"dimension": 4, "columns": 3, "outputs": 2} | change))
    for change in ({"x.gamma": np.float64(0)}, {"x.landmarks": np.empty((0, 7)), "x.weights": np.empty((0, 2))}):
        with pytest.raises(BundleError, match="compares with nothing"):
            Kernel.from_arrays({**arrays, **change}, "x", dimension=4, columns=3, outputs=2)
    with pytest.raises(BundleError, match=r"x\.gamma is not"):
        Kernel.from_arrays({**arrays, "x.gamma": np.array("much")}, "x", dimension=4, columns=3, outputs=2)
    broken = np.asarray(arrays["x.weights"]).copy()
    broken[0, 0] = np.nan
    with pytest.raises(BundleError, match=r"x\.weights .* finite"):
        Kernel.from_arrays({**arrays, "x.weights": broken}, "x", dimension=4, columns=3, outputs=2)
