"""How heads are fitted: scikit-learn's gradient boosting on components and features, exported as arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from serving.classifier.heads import FloatArray, Forest, Heads, Projection, sigmoid
from serving.errors import LabelError
from training.config import HeadSettings
from training.fitting.examples import Examples


def fit_projection(embeddings: FloatArray, components: int, seed: int) -> Projection:
    """The first principal components of (n, d) embeddings, at most n and d of them."""
    pca = PCA(min(components, *embeddings.shape), svd_solver="covariance_eigh", random_state=seed).fit(embeddings)
    return Projection(np.asarray(pca.mean_, np.float32), np.asarray(pca.components_, np.float32))


def fit_heads(X: FloatArray, examples: Examples, settings: HeadSettings, trees: int, seed: int) -> Heads:
    """One head a tier for P(acceptable), one for output tokens; not calibrated yet. X: (n, columns)."""
    k = examples.acceptable.shape[1]
    acceptable = [_fit_acceptable(X, examples, tier, settings, trees, seed) for tier in range(k)]
    tokens = [_fit_tokens(X, examples, tier, settings, seed) for tier in range(k)]
    return Heads(_forest(acceptable + tokens), slope=np.ones(k), intercept=np.zeros(k))


def calibrated(heads: Heads, X: FloatArray, examples: Examples) -> Heads:
    """The same heads with Platt's slope and intercept fitted on rows that the heads have not seen.

    A Gaussian prior of variance 0.1 around slope 1 and intercept 0 keeps a handful of rows from overturning the
    heads. Source: Platt 1999, with the prior in place of his target smoothing.
    """
    z = heads.log_odds(X)
    fitted = [_platt(z[:, tier], *_labelled(examples, tier)) for tier in range(z.shape[1])]
    slope, intercept = np.array(fitted).T
    return Heads(heads.forest, slope, intercept)


def check_labels(examples: Examples, tiers: Sequence[str], min_labels: int, part: str) -> None:
    """Raises LabelError saying what is missing when a tier has too few labels, or too few of one outcome."""
    for tier, name in enumerate(tiers):
        rows, y, _ = _labelled(examples, tier)
        bad, good = float(np.sum(1 - y)), float(np.sum(y))
        if len(rows) < min_labels or min(bad, good) < min_labels / 3:
            raise LabelError(
                f"tier {name}: {len(rows)} labelled prompts {part}, {good:.0f} acceptable and {bad:.0f} not; "
                f"needed are {min_labels}, with {min_labels // 3} of each outcome: log more of this tier's answers "
                "with outcomes, or take it off the ladder"
            )


def _labelled(examples: Examples, tier: int) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
    """Rows with a label for the tier, the labels, and their weights scaled to a mean of 1."""
    rows = np.flatnonzero(~np.isnan(examples.acceptable[:, tier]) & (examples.trust[:, tier] > 0))
    weight = (np.nan_to_num(examples.weight, nan=1.0) * examples.trust)[rows, tier].astype(np.float64)
    return rows, examples.acceptable[rows, tier], weight / weight.mean() if len(rows) else weight


def _fit_acceptable(X: FloatArray, examples: Examples, tier: int, settings: HeadSettings, trees: int, seed: int) -> Any:
    rows, y, weight = _labelled(examples, tier)
    # A share between 0 and 1 is that much of a success and the rest of a failure.
    model = HistGradientBoostingClassifier(max_iter=trees, **_shape(settings, len(rows), seed))
    both = np.concatenate([np.ones(len(rows), np.intp), np.zeros(len(rows), np.intp)])
    share = np.concatenate([weight * y, weight * (1 - y)])
    used = share > 0
    return model.fit(np.vstack([X[rows], X[rows]])[used], both[used], sample_weight=share[used])


def _fit_tokens(X: FloatArray, examples: Examples, tier: int, settings: HeadSettings, seed: int) -> Any:
    rows = np.flatnonzero(~np.isnan(examples.output_tokens[:, tier]))
    if len(rows) < 2 * settings.min_samples_leaf:  # nothing to learn from: the mean of what there is, or one page
        known = examples.output_tokens[rows, tier]
        return float(np.log(max(known.mean(), 1))) if len(known) else float(np.log(300))
    model = HistGradientBoostingRegressor(
        loss="poisson", max_iter=settings.token_trees, **_shape(settings, len(rows), seed)
    )
    return model.fit(X[rows], np.maximum(examples.output_tokens[rows, tier], 1))


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


def _forest(models: Sequence[Any]) -> Forest:
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


def _platt(z: FloatArray, rows: NDArray[np.intp], y: FloatArray, weight: FloatArray) -> tuple[float, float]:
    z = z[rows]

    def loss(parameters: FloatArray) -> float:
        slope, intercept = parameters
        p = np.clip(sigmoid(slope * z + intercept), 1e-9, 1 - 1e-9)
        prior = 5 * ((slope - 1) ** 2 + intercept**2)
        return float(prior - np.sum(weight * (y * np.log(p) + (1 - y) * np.log1p(-p))))

    slope, intercept = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0.05, 5), (-5, 5)]).x
    return float(slope), float(intercept)
