"""Pictures for MLflow: what quality costs, where calls go, and whether probabilities mean what they say."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluation.curves import Curve
from training.evaluation.evaluation import ROUTER, Evaluation
from training.evaluation.judged import Judged

_BASELINES: Final = {"prompt_length": "tab:orange", "knn": "tab:green", "ridge": "tab:purple"}


def curve_figure(evaluation: Evaluation) -> Figure:
    """Retained quality against relative cost: the router's curve, and where baselines retain the same quality."""
    unit = "in steps of the ladder" if evaluation.costs == "unknown" else "relative to always the top tier"
    figure, axes = _axes(f"cost {unit}", "retained quality", "What quality costs")
    assert evaluation.curve is not None  # asked for only where there is one
    curve = evaluation.curve
    axes.plot(curve.cost, curve.quality, color="tab:blue", label="this router")
    alone = [(tier["relative_cost"].value, tier["quality"].value) for tier in evaluation.alone.values()]
    known = [(cost, quality) for cost, quality in alone if cost is not None and quality is not None]
    if known:
        costs, qualities = np.array(known).T
        label = "one tier for all, and mixtures of neighbours"
        axes.plot(costs, qualities / qualities[-1], "s--", color="grey", label=label)
    for name, color in _BASELINES.items():
        points = [
            (figures["relative_cost"].value, quality)
            for quality, figures in evaluation.cost.get(name, {}).items()
            if figures["relative_cost"].value is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=color, label=name.replace("_", " "))
    spans = [
        (figures["relative_cost"].interval, quality)
        for quality, figures in evaluation.cost[ROUTER].items()
        if figures["relative_cost"].interval is not None
    ]
    if spans:
        ends, qualities = zip(*spans, strict=True)
        low, high = zip(*ends, strict=True)
        label = "95 % interval of its cost there"
        axes.hlines(qualities, low, high, color="tab:blue", alpha=0.4, linewidth=3, label=label)
    axes.legend(loc="lower right")
    return figure


def share_figure(by_mu: Curve, tiers: Sequence[str]) -> Figure:
    """Each tier's share of calls as μ grows, step by step."""
    figure, axes = _axes(
        "step of μ: from quality at any price to always the cheapest", "share of calls", "Where calls go"
    )
    axes.stackplot(np.arange(len(by_mu.share)), by_mu.share.T, labels=tiers, alpha=0.8)
    axes.plot(by_mu.quality, color="black", label="retained quality")
    axes.set(xlim=(0, len(by_mu.share) - 1), ylim=(0, float(np.nanmax(by_mu.quality, initial=1.0))))
    axes.legend(loc="lower left")
    return figure


def reliability_figure(judged: Judged, tiers: Sequence[str], bins: int = 10) -> Figure:
    """Share of acceptable answers against predicted probability, for each tier, in equally filled bins."""
    figure, axes = _axes("predicted P(acceptable)", "share acceptable", "Reliability, on held-out prompts")
    axes.plot([0, 1], [0, 1], "--", color="grey", label="perfect")
    for tier, name in enumerate(tiers):
        known = np.flatnonzero(~np.isnan(judged.acceptable[:, tier]))
        if len(known) < bins:
            continue
        proba, good = judged.proba[:, tier], judged.acceptable[:, tier]
        parts = np.array_split(known[np.argsort(proba[known], kind="stable")], bins)
        means = np.array(
            [(proba[part].mean(), good[part].mean(), good[part].std() / len(part) ** 0.5) for part in parts]
        )
        axes.errorbar(means[:, 0], means[:, 1], yerr=1.96 * means[:, 2], marker="o", capsize=2, label=name)
    axes.legend()
    return figure


def _axes(x: str, y: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.5, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.grid(alpha=0.3)
    return figure, axes
