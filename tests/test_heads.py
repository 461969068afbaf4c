"""Heads as plain arrays give what scikit-learn gives, and refuse what does not fit."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from serving.classifier.heads import Forest, Heads, sigmoid
from serving.errors import BundleError, LabelError
from tests.factories import CONFIG, made_up_examples
from training.fitting.heads import _forest, calibrated, check_labels, fit_heads, fit_projection


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(800, 6)).astype(np.float32)
    return X, X[:, 0] + X[:, 1] * X[:, 2]


def test_exported_trees_predict_exactly_what_scikit_learn_predicts(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, z = data
    classifier = HistGradientBoostingClassifier(max_iter=25, max_leaf_nodes=9).fit(X, z > 0)
    regressor = HistGradientBoostingRegressor(loss="poisson", max_iter=10).fit(X, np.exp(z))
    forest = _forest([classifier, 1.5, regressor])
    outputs = forest(X)
    np.testing.assert_allclose(sigmoid(outputs[:, 0]), classifier.predict_proba(X)[:, 1], rtol=1e-9)
    np.testing.assert_allclose(outputs[:, 1], 1.5)
    np.testing.assert_allclose(np.exp(outputs[:, 2]), regressor.predict(X), rtol=1e-9)


def test_a_forest_of_two_trees_worked_by_hand() -> None:
    # Tree 1: x0 <= 1 → 10, else 20. Tree 2: x1 <= 0 → 1, else (x0 <= 5 → 2, else 3). Baseline 100.
    inf = np.inf
    forest = Forest(
        feature=np.array([0, 0, 0, 1, 0, 0, 0, 0], np.int32),
        threshold=np.array([1, inf, inf, 0, inf, 5, inf, inf]),
        left=np.array([1, 1, 2, 4, 4, 6, 6, 7], np.int32),
        value=np.array([0, 10, 20, 0, 1, 0, 2, 3], np.float64),
        roots=np.array([0, 3], np.int32),
        first_tree=np.array([0], np.int32),
        baseline=np.array([100.0]),
        depth=2,
    )
    X = np.array([[1, 0], [1.5, 0], [0, 1], [9, 1]])
    assert forest(X)[:, 0].tolist() == [111, 121, 112, 123]


def test_one_row_gives_what_many_rows_give(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, z = data
    forest = _forest([HistGradientBoostingClassifier(max_iter=5).fit(X, z > 0)])
    np.testing.assert_array_equal(np.vstack([forest(X[i : i + 1]) for i in range(50)]), forest(X)[:50])


def test_heads_survive_being_stored() -> None:
    examples = made_up_examples(400)
    heads = fit_heads(examples.features, examples, CONFIG.heads, trees=5, seed=0)
    columns = examples.features.shape[1]
    again = Heads.from_arrays(heads.to_arrays("x"), "x", columns=columns, tiers=3)
    np.testing.assert_array_equal(again.predict(examples.features), heads.predict(examples.features))


def test_stored_heads_that_do_not_fit_are_refused() -> None:
    examples = made_up_examples(400)
    arrays = fit_heads(examples.features, examples, CONFIG.heads, trees=5, seed=0).to_arrays("x")
    columns = examples.features.shape[1]
    with pytest.raises(BundleError, match="one head for each of 2"):
        Heads.from_arrays(arrays, "x", columns=columns, tiers=2)
    with pytest.raises(BundleError, match="inconsistent"):
        Heads.from_arrays(arrays, "x", columns=1, tiers=3)
    with pytest.raises(BundleError, match="inconsistent"):
        Heads.from_arrays({**arrays, "x.left": arrays["x.left"] + 10**6}, "x", columns=columns, tiers=3)
    del arrays["x.value"]
    with pytest.raises(BundleError, match=r"lacks x\.value"):
        Heads.from_arrays(arrays, "x", columns=columns, tiers=3)


def test_a_tier_nobody_tried_does_not_touch_the_others() -> None:
    examples = made_up_examples(600)
    masked = made_up_examples(600)
    masked.acceptable[300:, 1] = np.nan
    whole, partly = (fit_heads(e.features, e, CONFIG.heads, trees=5, seed=0) for e in (examples, masked))
    np.testing.assert_array_equal(
        whole.predict(examples.features)[0][:, [0, 2]], partly.predict(examples.features)[0][:, [0, 2]]
    )


def test_a_share_of_acceptable_answers_is_learned_as_a_share() -> None:
    examples = made_up_examples(600)
    examples.acceptable[:] = 0.25
    heads = fit_heads(examples.features, examples, CONFIG.heads, trees=5, seed=0)
    np.testing.assert_allclose(heads.predict(examples.features)[0], 0.25, atol=0.01)


def test_calibration_pulls_overconfident_heads_to_the_frequencies() -> None:
    examples = made_up_examples(2000)
    heads = fit_heads(examples.features, examples, CONFIG.heads, trees=30, seed=0)
    loud = Heads(heads.forest, slope=np.full(3, 1.0), intercept=np.full(3, 2.0))
    calibrated_heads = calibrated(loud, examples.features, examples)
    gap = np.abs(calibrated_heads.predict(examples.features)[0].mean(axis=0) - examples.acceptable.mean(axis=0))
    assert gap.max() < 0.02


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


def test_a_projection_is_what_principal_components_are() -> None:
    rng = np.random.default_rng(0)
    E = rng.normal(size=(200, 5)).astype(np.float32) @ np.diag([9, 5, 1, 0.1, 0.01]).astype(np.float32)
    scores = fit_projection(E, components=2, seed=0)(E)
    assert scores.shape == (200, 2)
    covariance = np.cov(scores.T)
    assert abs(covariance[0, 1]) < 1e-3
    np.testing.assert_allclose(np.diag(covariance), np.linalg.eigvalsh(np.cov(E.T))[::-1][:2], rtol=1e-3)
