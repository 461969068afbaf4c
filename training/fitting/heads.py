"""How heads are fitted to examples and calibrated: a kernel, trees where they help, a prior where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from serving.classifier.forest import design_matrix
from serving.classifier.heads import Heads
from serving.classifier.kernel import Kernel
from serving.classifier.prior import Prior
from serving.classifier.proba import FloatArray, sigmoid
from serving.errors import LabelError
from training.config import HeadSettings
from training.fitting.examples import Examples
from training.fitting.forest import as_forest, fit_projection, fit_tokens, fit_trees
from training.fitting.kernel import fit_kernel

Members = Literal["kernel", "kernel and trees"]


@dataclass(frozen=True)
class Recipe:
    """What heads are made of. prior: a kernel fitted on the public outcomes, None to start from nothing; prior_share:
    how much of what it says counts, 0 to 1."""

    settings: HeadSettings
    members: Members
    prior: Kernel | None
    seed: int
    prior_share: float = 1.0


def fit_heads(examples: Examples, recipe: Recipe, *, features_only: bool = False) -> Heads:
    """One head a tier for P(acceptable), one for output tokens; not calibrated yet.

    features_only: without embeddings, hence without the prior, which needs them.
    """
    settings, seed, k = recipe.settings, recipe.seed, examples.acceptable.shape[1]
    embeddings, X, projection = None, examples.features, None
    if not features_only:
        embeddings = examples.embedding
        projection = fit_projection(embeddings, settings.components, seed)
        X = design_matrix(projection, embeddings, examples.features)
    target, weight = examples.targets()
    prior = None
    if recipe.prior is not None and not features_only:
        prior = _calibrated_prior(recipe.prior, recipe.prior_share, examples, k)
        target = target - prior(embeddings, examples.features)
    with_trees = recipe.members == "kernel and trees"
    return Heads(
        kernel=fit_kernel(embeddings, examples.features, target, weight, settings, seed),
        trees=as_forest(fit_trees(X, target, weight, settings, seed)) if with_trees else None,
        tokens=as_forest(fit_tokens(X, examples.output_tokens, settings, seed)),
        projection=projection,
        prior=prior,
        slope=np.ones(k),
        intercept=np.zeros(k),
    )


def calibrated(heads: Heads, log_odds: FloatArray, examples: Examples) -> Heads:
    """The same heads with Platt's slope and intercept, fitted on what heads like these, which have not seen the
    examples, said of them: log-odds (n, k), NaN where nothing was said."""
    slope, intercept = platt(log_odds, examples)
    return replace(heads, slope=slope, intercept=intercept)


def check_labels(examples: Examples, tiers: Sequence[str], min_labels: int, part: str) -> None:
    """Raises LabelError saying what is missing when a tier has too few labels, or too few of one outcome."""
    weight = examples.label_weight()
    for tier, name in enumerate(tiers):
        y = examples.acceptable[weight[:, tier] > 0, tier]
        bad, good = float(np.sum(1 - y)), float(np.sum(y))
        if len(y) < min_labels or min(bad, good) < min_labels / 3:
            raise LabelError(
                f"tier {name}: {len(y)} labelled prompts {part}, {good:.0f} acceptable and {bad:.0f} not; "
                f"needed are {min_labels}, with {min_labels // 3} of each outcome: log more of this tier's answers "
                "with outcomes, or take it off the ladder"
            )


def platt(z: FloatArray, examples: Examples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and intercept of each tier, (k,), that put log-odds (n, k) on the scale of the labels.

    A Gaussian prior of variance 0.1 around slope 1 and intercept 0 keeps a handful of rows from overturning the heads.
    Source: Platt 1999, with the prior in place of his target smoothing.
    """
    acceptable, weight = examples.acceptable, examples.label_weight()
    fitted = []
    for tier in range(z.shape[1]):
        used = (weight[:, tier] > 0) & ~np.isnan(z[:, tier])
        fitted.append(_platt_of_tier(z[used, tier], acceptable[used, tier], weight[used, tier]))
    slope, intercept = np.array(fitted, np.float64).T
    return slope, intercept


def _calibrated_prior(kernel: Kernel, share: float, examples: Examples, tiers: int) -> Prior:
    """The public kernel as this log's prior, its log-odds put on the log's scale."""
    prior = Prior(kernel, slope=np.ones(tiers), intercept=np.zeros(tiers), share=share)
    slope, intercept = platt(prior.log_odds(examples.embedding, examples.features), examples)
    return replace(prior, slope=slope, intercept=intercept)


def _platt_of_tier(z: FloatArray, y: FloatArray, weight: FloatArray) -> tuple[float, float]:
    def loss(parameters: FloatArray) -> float:
        slope, intercept = parameters
        p = np.clip(sigmoid(slope * z + intercept), 1e-9, 1 - 1e-9)
        prior = 5 * ((slope - 1) ** 2 + intercept**2)
        return float(prior - np.sum(weight * (y * np.log(p) + (1 - y) * np.log1p(-p))))

    slope, intercept = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0.05, 5), (-5, 5)]).x
    return float(slope), float(intercept)
