"""How good a bundle is on prompts it has not seen: per tier, and as a policy that trades quality for cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from serving.classifier.bundle import Bundle, Threshold
from serving.classifier.heads import FloatArray
from serving.routing.costs import expected_costs
from serving.routing.promise import choose
from training.fitting.examples import Examples

_CURVE_STEPS: Final = 41


@dataclass(frozen=True)
class Curve:
    """Quality and cost of the routing rule from μ = 0 on, both relative to always using the top tier; (steps,)."""

    mu: NDArray[np.float64]
    quality: NDArray[np.float64]
    cost: NDArray[np.float64]
    top_share: NDArray[np.float64]


def brier(proba: FloatArray, y: FloatArray) -> float:
    """Mean squared gap between P(acceptable) and the outcome, in [0, 1]. Source: Brier 1950, eq. 2, per class."""
    return float(np.mean((proba - y) ** 2))


def auc(proba: FloatArray, y: FloatArray) -> float:
    """Chance that an acceptable answer was given a higher probability than another; nan with one outcome only.

    A share of acceptable answers counts as acceptable from one half on.
    """
    good = y >= 0.5
    return float(roc_auc_score(good, proba)) if 0 < good.sum() < len(good) else float("nan")


def expected_calibration_error(proba: FloatArray, y: FloatArray, bins: int = 15) -> float:
    """Mean gap between probability and outcome over equally filled bins, in [0, 1].

    proba, y: (n,). Raises ValueError when n == 0 or lengths differ.
    Source: Guo et al. 2017, arXiv:1706.04599, eq. 3, with equal-mass bins (Nixon et al. 2019, arXiv:1904.01685).
    """
    if len(proba) != len(y) or len(y) == 0:
        raise ValueError(f"needs as many outcomes as probabilities, at least one; got {len(y)} and {len(proba)}")
    order = np.argsort(proba, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return float(sum(len(part) * abs(proba[part].mean() - y[part].mean()) for part in parts) / len(y))


def tier_metrics(proba: FloatArray, examples: Examples, tiers: Sequence[str]) -> dict[str, float]:
    """AUC, Brier score, calibration error, labels and acceptable share per tier, named `auc.economy` and so on.

    Over judged outcomes, unweighted: what was logged, not what another policy would have logged.
    """
    metrics: dict[str, float] = {}
    judged = examples.judged()
    for tier, name in enumerate(tiers):
        y = judged[:, tier].astype(np.float64)
        known = np.flatnonzero(~np.isnan(y))
        metrics[f"labels.{name}"] = float(len(known))
        if len(known):
            metrics |= {
                f"acceptable.{name}": float(y[known].mean()),
                f"auc.{name}": auc(proba[known, tier], y[known]),
                f"brier.{name}": brier(proba[known, tier], y[known]),
                f"ece.{name}": expected_calibration_error(proba[known, tier], y[known]),
            }
    return {name: value for name, value in metrics.items() if not np.isnan(value)}


def complete(examples: Examples) -> NDArray[np.bool_]:
    """Prompts whose outcome is known at every tier: a policy can be judged on them whatever it chooses."""
    return np.asarray(~np.isnan(examples.judged()).any(axis=1))


def policy_metrics(bundle: Bundle, examples: Examples, thresholds: Sequence[Threshold]) -> dict[str, float]:
    """Retained quality, relative cost and share of the top tier at each threshold's μ, on complete examples."""
    metrics: dict[str, float] = {"judged_prompts": float(len(examples))}
    if len(examples) == 0:
        return metrics
    proba, expected, paid = _proba_and_costs(bundle, examples)
    for threshold in thresholds:
        choice = choose(proba, expected, threshold.mu or 0.0)
        quality, cost = _relative(choice, examples.acceptable, paid)
        suffix = target_suffix(threshold.target)
        metrics |= {
            f"mu_found.{suffix}": float(threshold.mu is not None),
            f"retained_quality.{suffix}": quality,
            f"relative_cost.{suffix}": cost,
            f"top_share.{suffix}": float(np.mean(choice == proba.shape[1] - 1)),
        }
    return {name: value for name, value in metrics.items() if not np.isnan(value)}


def target_suffix(target: float) -> str:
    """`at_95` for .95, `at_99.5` for .995."""
    return f"at_{100 * target:g}"


def quality_cost_curve(bundle: Bundle, examples: Examples) -> Curve:
    """What the routing rule gives on complete examples as μ grows until the cheapest tier takes everything."""
    proba, expected, paid = _proba_and_costs(bundle, examples)
    spread = np.maximum(expected[:, -1] - expected[:, 0], 1e-12)
    largest = float(np.quantile(1 / spread, 0.99))
    mus = np.concatenate([[0.0], np.geomspace(largest / 1e4, largest, _CURVE_STEPS - 1)])
    choices = [choose(proba, expected, mu) for mu in mus]
    quality, cost = np.array([_relative(choice, examples.acceptable, paid) for choice in choices]).T
    top_share = np.array([np.mean(choice == proba.shape[1] - 1) for choice in choices])
    return Curve(mus, quality, cost, top_share)


def _proba_and_costs(bundle: Bundle, examples: Examples) -> tuple[FloatArray, NDArray[np.float64], NDArray[np.float64]]:
    """P(acceptable), the costs that the rule expects, and the costs that were paid where they are on record."""
    predictions = bundle.predict(examples.embedding, examples.features)
    expected = expected_costs(bundle.tiers, examples.input_tokens, predictions.output_tokens)
    recorded = np.isfinite(examples.cost_usd).all(axis=1, keepdims=True)
    tokens = np.where(np.isnan(examples.output_tokens), predictions.output_tokens, examples.output_tokens)
    paid = expected_costs(bundle.tiers, examples.input_tokens, tokens)
    return predictions.proba, expected, np.where(recorded, examples.cost_usd, paid)


def _relative(choice: NDArray[np.intp], acceptable: FloatArray, cost: FloatArray) -> tuple[float, float]:
    """Quality and cost of the chosen tiers over those of the top tier; nan where the top's are zero."""
    rows = np.arange(len(choice))
    top_quality, top_cost = float(acceptable[:, -1].sum()), float(cost[:, -1].sum())
    quality = float(acceptable[rows, choice].sum()) / top_quality if top_quality > 0 else float("nan")
    return quality, float(cost[rows, choice].sum()) / top_cost if top_cost > 0 else float("nan")
