"""Trees as plain arrays give what scikit-learn gives, and refuse what does not fit."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from serving.classifier.forest import Forest, Projection
from serving.errors import BundleError
from training.fitting.forest import as_forest, fit_projection


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(800, 6)).astype(np.float32)
    return X, X[:, 0] + X[:, 1] * X[:, 2]


def test_exported_trees_predict_exactly_what_scikit_learn_predicts(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, z = data
    plain = HistGradientBoostingRegressor(max_iter=25, max_leaf_nodes=9).fit(X, z)
    poisson = HistGradientBoostingRegressor(loss="poisson", max_iter=10).fit(X, np.exp(z))
    outputs = as_forest([plain, 1.5, poisson])(X)
    np.testing.assert_allclose(outputs[:, 0], plain.predict(X), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(outputs[:, 1], 1.5)
    np.testing.assert_allclose(np.exp(outputs[:, 2]), poisson.predict(X), rtol=1e-9)


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
    forest = as_forest([HistGradientBoostingRegressor(max_iter=5).fit(X, z)])
    np.testing.assert_array_equal(np.vstack([forest(X[i : i + 1]) for i in range(50)]), forest(X)[:50])


def test_stored_trees_that_do_not_fit_are_refused(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, z = data
    arrays = as_forest([HistGradientBoostingRegressor(max_iter=5).fit(X, z)]).to_arrays("x")
    with pytest.raises(BundleError, match="inconsistent"):
        Forest.from_arrays(arrays, "x", columns=1)
    with pytest.raises(BundleError, match="inconsistent"):
        Forest.from_arrays({**arrays, "x.left": np.asarray(arrays["x.left"]) + 10**6}, "x", columns=6)
    with pytest.raises(BundleError, match="inconsistent"):
        Forest.from_arrays({**arrays, "x.value": np.full(len(arrays["x.value"]), np.nan)}, "x", columns=6)
    del arrays["x.value"]
    with pytest.raises(BundleError, match=r"lacks x\.value"):
        Forest.from_arrays(arrays, "x", columns=6)


def test_a_forest_of_leaves_alone_survives_being_stored() -> None:
    constant = as_forest([1.5, 2.5])
    again = Forest.from_arrays(constant.to_arrays("x"), "x", columns=3)
    assert again(np.zeros((2, 3))).tolist() == [[1.5, 2.5], [1.5, 2.5]]


def test_a_projection_is_what_principal_components_are() -> None:
    rng = np.random.default_rng(0)
    E = rng.normal(size=(200, 5)).astype(np.float32) @ np.diag([9, 5, 1, 0.1, 0.01]).astype(np.float32)
    scores = fit_projection(E, components=2, seed=0)(E)
    assert scores.shape == (200, 2)
    covariance = np.cov(scores.T)
    assert abs(covariance[0, 1]) < 1e-3
    np.testing.assert_allclose(np.diag(covariance), np.linalg.eigvalsh(np.cov(E.T))[::-1][:2], rtol=1e-3)


def test_a_projection_of_other_embeddings_is_refused() -> None:
    arrays = fit_projection(np.eye(5, dtype=np.float32), components=2, seed=0).to_arrays("x")
    with pytest.raises(BundleError, match="embeddings of 384 dimensions"):
        Projection.from_arrays(arrays, "x", dimension=384)
