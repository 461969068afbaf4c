"""What other settings of the heads would give on the public outcomes.

The figures of docs/decisions/2026-11-24-heads.md:

    python -m tests.benchmarks.head_settings

Fitted on the fit part, measured on the calibrate part; the test part is not looked at.
"""

import time
from pathlib import Path

import numpy as np

from serving.classifier.heads import Heads, design_matrix
from training.config import HeadSettings, TrainingConfig
from training.encoders import DEFAULT_ENCODER
from training.fitting.examples import PARTS, Examples, prompt_groups, split_parts
from training.fitting.heads import fit_heads, fit_projection
from training.labelling.outcomes import Labeller
from training.logs.ladder import read_ladder
from training.public_outcomes import read_public_outcomes

DATASETS = Path(__file__).parent.parent.parent / "datasets"
VARIANTS: tuple[dict[str, float], ...] = (
    {}, {"components": 32}, {"components": 128}, {"trees": 80}, {"trees": 200}, {"leaves": 6}, {"leaves": 24},
    {"depth": 10},
    {"learning_rate": 0.03, "trees": 200}, {"learning_rate": 0.08, "trees": 80}, {"min_samples_leaf": 60},
    {"l2": 20}, {"leaves": 6, "trees": 200},
)  # fmt: skip


def log_loss(proba: np.ndarray, acceptable: np.ndarray) -> float:
    """Mean over every labelled tier of every prompt."""
    p = np.clip(proba, 1e-6, 1 - 1e-6)
    return float(np.nanmean(-(acceptable * np.log(p) + (1 - acceptable) * np.log(1 - p))))


def parts() -> tuple[Examples, Examples]:
    """The fit and calibrate parts of the public outcomes, as `tierwise train` splits them."""
    config, ladder = TrainingConfig(), read_ladder(DATASETS / "public_ladder.json")
    labeller = Labeller(ladder.names, config.acceptable_from, config.feedback_weight, config.max_weight)
    tier_of = {model: tier.name for tier in ladder.tiers for model in tier.models}
    examples, _ = read_public_outcomes(DATASETS / "public_outcomes.parquet", DEFAULT_ENCODER, labeller, tier_of)
    part = split_parts(examples, prompt_groups(examples, config.same_prompt_cosine), config.split)
    return examples.take(part == PARTS.index("fit")), examples.take(part == PARTS.index("calibrate"))


def cpu_ms(heads: Heads, row: np.ndarray) -> float:
    """Of one prediction."""
    started = time.process_time()
    for _ in range(500):
        heads.predict(row)
    return (time.process_time() - started) / 500 * 1e3


def main() -> None:
    fit, held_out = parts()
    prior = np.nanmean(fit.acceptable, axis=0)
    print(f"share acceptable alone: {log_loss(np.tile(prior, (len(held_out), 1)), held_out.acceptable):.4f}")
    for variant in VARIANTS:
        settings = HeadSettings.model_validate({**HeadSettings().model_dump(), **variant})
        projection = fit_projection(fit.embedding, settings.components, seed=0)
        X, Z = (design_matrix(projection, part.embedding, part.features) for part in (fit, held_out))
        heads = fit_heads(X, fit, settings, settings.trees, seed=0)
        alone = fit_heads(fit.features, fit, settings, settings.fallback_trees, seed=0)
        print(
            f"{variant or 'defaults'}: log loss {log_loss(heads.predict(Z)[0], held_out.acceptable):.4f}, "
            f"features alone {log_loss(alone.predict(held_out.features)[0], held_out.acceptable):.4f}, "
            f"{cpu_ms(heads, Z[:1]):.3f} ms a prediction",
            flush=True,
        )


if __name__ == "__main__":
    main()
