"""Pictures of a run, for MLflow: what quality costs, and whether probabilities mean what they say."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from serving.classifier.heads import FloatArray
from training.evaluation.metrics import Curve
from training.fitting.examples import Examples


def curve_figure(curve: Curve) -> Figure:
    """Retained quality against relative cost, with the mixture of cheapest and top tier beside it."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.cost, curve.quality, marker=".", label="this router")
    axes.plot([curve.cost[-1], 1], [curve.quality[-1], 1], "--", color="grey", label="random mixture of the ends")
    axes.set(
        xlabel="cost relative to always the top tier",
        ylabel="retained quality",
        title="What quality costs, on held-out prompts",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def reliability_figure(proba: FloatArray, examples: Examples, tiers: Sequence[str], bins: int = 10) -> Figure:
    """Share of acceptable answers against predicted probability, for each tier, in equally filled bins."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color="grey", label="perfect")
    judged = examples.judged()
    for tier, name in enumerate(tiers):
        known = np.flatnonzero(~np.isnan(judged[:, tier]))
        if len(known) < bins:
            continue
        parts = np.array_split(known[np.argsort(proba[known, tier], kind="stable")], bins)
        axes.plot(
            [proba[part, tier].mean() for part in parts],
            [judged[part, tier].mean() for part in parts],
            marker="o",
            label=name,
        )
    axes.set(xlabel="predicted P(acceptable)", ylabel="share acceptable", title="Reliability, on held-out prompts")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
