"""How trees are fitted: scikit-learn's gradient boosting on components and features, exported as arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor

from serving.classifier.forest import Forest, Projection
from serving.classifier.proba import FloatArray
from training.config import HeadSettings


def fit_projection(embeddings: FloatArray, components: int, seed: int) -> Projection:
    """The first principal components of (n, d) embeddings, at most n and d of them."""
    pca = PCA(min(components, *embeddings.shape), svd_solver="covariance_eigh", random_state=seed).fit(embeddings)
    return Projection(np.asarray(pca.mean_, np.float32), np.asarray(pca.components_, np.float32))


def fit_trees(X: FloatArray, target: FloatArray, weight: FloatArray, settings: HeadSettings, seed: int) -> list[Any]:
    """A model for each column of `target`; X: (n, columns), target, weight: (n, k), weight 0 where there is nothing.

    Where a column has nothing at all: 0, as a plain number.
    """
    models: list[Any] = []
    for y, w in zip(target.T, weight.T, strict=True):
        used = w > 0
        if not used.any():
            models.append(0.0)
            continue
        model = HistGradientBoostingRegressor(max_iter=settings.trees, **_shape(settings, int(used.sum()), seed))
        equal = np.ptp(w[used]) < 1e-9  # said as no weights: with them scikit-learn 1.9 takes 20 times as long to bin
        models.append(model.fit(X[used], y[used], sample_weight=None if equal else w[used]))
    return models


def fit_tokens(X: FloatArray, output_tokens: FloatArray, settings: HeadSettings, seed: int) -> list[Any]:
    """A model of the log of each tier's output tokens; output_tokens: (n, k), NaN where unknown.

    Where there is nothing to learn from: the mean of what there is, or one page, as a plain number.
    """
    models: list[Any] = []
    for tokens in output_tokens.T:
        rows = np.flatnonzero(~np.isnan(tokens))
        if len(rows) < 2 * settings.min_samples_leaf:
            models.append(float(np.log(max(tokens[rows].mean(), 1))) if len(rows) else float(np.log(300)))
            continue
        model = HistGradientBoostingRegressor(
            loss="poisson", max_iter=settings.token_trees, **_shape(settings, len(rows), seed)
        )
        models.append(model.fit(X[rows], np.maximum(tokens[rows], 1)))
    return models


def _shape(settings: HeadSettings, rows: int, seed: int) -> dict[str, Any]:
    return {
        "learning_rate": settings.learning_rate,
        "max_leaf_nodes": settings.leaves,
        "max_depth": settings.depth,
        "min_samples_leaf": max(5, min(settings.min_samples_leaf, rows // 20)),
        "l2_regularization": settings.l2,
        "early_stopping": False,
        "random_state": seed,
    }


def as_forest(models: Sequence[Any]) -> Forest:
    """scikit-learn's trees as one set of arrays, siblings side by side; a plain number is an output without trees."""
    blocks: list[dict[str, NDArray[Any]]] = []
    roots: list[int] = []
    first_tree: list[int] = []
    depth = size = 0
    for model in models:
        trees = [_leaf()] if isinstance(model, float) else [p.nodes for stage in model._predictors for p in stage]
        first_tree.append(len(roots))
        for nodes in trees:
            block, tree_depth = _tree(nodes, size)
            roots.append(size)
            blocks.append(block)
            size += len(block["left"])
            depth = max(depth, tree_depth)
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    baseline = [m if isinstance(m, float) else float(np.ravel(m._baseline_prediction)[0]) for m in models]
    return Forest(
        **joined,
        roots=np.array(roots, np.int32),
        first_tree=np.array(first_tree, np.int32),
        baseline=np.array(baseline),
        depth=depth,
    )


def _leaf() -> NDArray[np.void]:
    """A tree that adds nothing."""
    return np.array([(True, 0.0)], [("is_leaf", "?"), ("value", "f8")])


def _tree(nodes: NDArray[np.void], offset: int) -> tuple[dict[str, NDArray[Any]], int]:
    """One tree, its nodes renumbered breadth first from `offset`, and its depth."""
    order, depth = [0], 0
    level = [0]
    left = np.full(len(nodes), -1, np.int32)
    while level:
        below: list[int] = []
        for node in level:
            if not nodes[node]["is_leaf"]:
                left[node] = offset + len(order) + len(below)
                below += [int(nodes[node]["left"]), int(nodes[node]["right"])]
        order += below
        depth += bool(below)
        level = below
    arranged, left = nodes[order], left[order]
    leaf = arranged["is_leaf"].astype(bool)
    left[leaf] = offset + np.flatnonzero(leaf)
    threshold = np.full(len(arranged), np.inf)
    feature = np.zeros(len(arranged), np.int32)
    if not leaf.all():
        threshold[~leaf], feature[~leaf] = arranged["num_threshold"][~leaf], arranged["feature_idx"][~leaf]
    return {
        "feature": feature,
        "threshold": threshold,
        "left": left,
        "value": arranged["value"].astype(float),
    }, depth
