"""What a router is compared with in its own domain: each learns the gain of the strong model, and ranks by it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


@dataclass(frozen=True)
class View:
    """Prompts as the recipes see them: embedding (n, d), features (n, f), text (n,)."""

    embedding: NDArray[np.float32]
    features: NDArray[np.float32]
    text: NDArray[np.object_]


Recipe = Callable[[View, NDArray[np.floating], View], NDArray[np.floating]]
"""Training prompts, the gain on them (n,), new prompts → the gain expected on those."""


def ridge(train: View, gain: NDArray[np.floating], new: View) -> NDArray[np.floating]:
    """Ridge on embedding and surface features."""
    model = make_pipeline(StandardScaler(), Ridge(alpha=1000))
    X, X_new = (np.hstack([view.embedding, view.features]) for view in (train, new))
    return np.asarray(model.fit(X, gain).predict(X_new))


def tf_idf_ridge(train: View, gain: NDArray[np.floating], new: View) -> NDArray[np.floating]:
    """Ridge on tf-idf of words and pairs of words."""
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2), Ridge(alpha=1, solver="sparse_cg"))
    return np.asarray(model.fit(train.text, gain).predict(new.text))


def nearest(train: View, gain: NDArray[np.floating], new: View) -> NDArray[np.floating]:
    """Mean gain of the 60 nearest."""
    model = KNeighborsRegressor(min(60, len(gain)), algorithm="brute")
    return np.asarray(model.fit(train.embedding, gain).predict(new.embedding))


def boosting(train: View, gain: NDArray[np.floating], new: View) -> NDArray[np.floating]:
    """Gradient boosting on 64 principal components and surface features."""
    components = PCA(min(64, *train.embedding.shape), random_state=0).fit(train.embedding)
    model = HistGradientBoostingRegressor(
        max_iter=120, learning_rate=0.05, max_leaf_nodes=12, max_depth=5, min_samples_leaf=25, l2_regularization=5,
        early_stopping=False, random_state=0,
    )  # fmt: skip
    X, X_new = (np.hstack([components.transform(view.embedding), view.features]) for view in (train, new))
    return np.asarray(model.fit(X, gain).predict(X_new))


RECIPES: Final[dict[str, Recipe]] = {
    "ridge": ridge, "tf-idf ridge": tf_idf_ridge, "kNN (60)": nearest, "gradient boosting": boosting,
}  # fmt: skip
BLEND: Final = "rank average of the four"


def gains(train: View, gain: NDArray[np.floating], new: View) -> dict[str, NDArray[np.floating]]:
    """What each recipe expects, and the mean of their ranks."""
    found = {name: recipe(train, gain, new) for name, recipe in RECIPES.items()}
    return {**found, BLEND: np.mean([rankdata(values) for values in found.values()], axis=0)}
