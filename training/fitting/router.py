"""How a bundle is made of examples: fitted and calibrated, exported, reloaded, then given thresholds through it."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.chat import read_conversation
from serving.classifier.bundle import Bundle, CalibrationSet, Golden, Manifest, Predictions, write_bundle
from serving.classifier.classifier import GOLDEN_TOLERANCE, Classifier
from serving.classifier.encoder import EmbeddingMemo, Encoder
from serving.classifier.features import FEATURE_NAMES, FEATURES_VERSION
from serving.classifier.quantised import quantised
from serving.classifier.trained_on import TrainedOn, seen_keys
from serving.routing.promise import promised_thresholds
from serving.tiers import Tier
from training.config import TrainingConfig
from training.fitting.choice import Choice, choose
from training.fitting.cross_validation import TO_CALIBRATE, cross_validated
from training.fitting.examples import PARTS, Examples
from training.fitting.heads import Recipe, calibrated, check_labels, fit_heads
from training.fitting.prior import PublicPrior

GOLDEN_PROMPTS: Final = (
    "What is the capital of Portugal?",
    "Translate into German: the invoice is due at the end of the month.",
    "Prove that the sum of two even numbers is even.",
    "Summarise the following meeting notes in three bullet points:\n- budget moved to May\n- hiring paused",
    "def total(items):\n    return sum(i.price for i in items)\n\nWhy does this fail when items is None?",
    "A tank fills in 6 hours and drains in 9. Both are opened when it is half full. When is it full?",
    "Which of the following is a noble gas?\nA. nitrogen\nB. argon\nC. chlorine\nD. oxygen",
    "Écris un message poli pour refuser une invitation à déjeuner.",
    "请用一句话解释什么是通货膨胀。",
    "SELECT region, SUM(amount) FROM orders GROUP BY 1;  -- rewrite it to keep only regions above the mean",
)


def fit_bundle(
    folder: Path,
    examples: Examples,
    part: NDArray[np.intp],
    tiers: tuple[Tier, ...],
    config: TrainingConfig,
    encoder: Encoder,
    *,
    groups: NDArray[np.intp],
    prior: PublicPrior | None = None,
) -> tuple[Bundle, Choice]:
    """Train a bundle into `folder` and give it back as reloaded, with what its heads are made of and why.

    part: index into PARTS for each example. groups: as from `prompt_groups`. prior: what the heads start from.
    Raises LabelError when a tier has too few labels to fit.
    """
    fit, threshold, _ = (examples.take(part == i) for i in range(len(PARTS)))
    names = [tier.name for tier in tiers]
    check_labels(examples, names, config.min_labels, "in all")
    check_labels(fit, names, config.min_labels // 2, "in the part to fit")

    recipe = Recipe(config.heads, "kernel", None if prior is None else prior.kernel, config.seed)
    together = groups[part == PARTS.index("fit")]
    choice = choose(fit, recipe, _judged_apart(fit, together), config.heads.members)
    unseen = cross_validated(fit, choice.recipe, together, TO_CALIBRATE)
    by_features = replace(recipe, members="kernel")
    unseen_by_features = cross_validated(fit, by_features, together, TO_CALIBRATE, features_only=True)
    draft = Bundle(
        manifest=Manifest(
            created=datetime.now(UTC),
            tiers=tiers,
            encoder=encoder.identity,
            features_version=FEATURES_VERSION,
            feature_names=FEATURE_NAMES,
            acceptable_from=config.acceptable_from,
            thresholds=(),
            fallback_thresholds=(),
            metrics={},
            dataset_digest=examples.digest(),
            golden_tolerance=GOLDEN_TOLERANCE,
        ),
        digest="",
        heads=calibrated(fit_heads(fit, choice.recipe), unseen, fit),
        fallback_heads=calibrated(fit_heads(fit, by_features, features_only=True), unseen_by_features, fit),
        calibration=_calibration_set(None, threshold, config.max_weight),
        golden=(),
        trained_on=_trained_on(examples, part, config.remembered_prompts, prior),
    )
    bundle = write_bundle(folder, draft)
    return write_bundle(folder, _promising(bundle, threshold, config, encoder)), choice


def without_encoder(bundle: Bundle) -> Bundle:
    """The features-only heads of a bundle as a bundle of their own: what serves before anything is promoted."""
    thresholds = bundle.manifest.fallback_thresholds
    manifest = bundle.manifest.model_copy(update={"encoder": None, "thresholds": thresholds, "metrics": {}})
    calibration = replace(bundle.calibration, predicted=bundle.calibration.fallback)
    return replace(bundle, manifest=manifest, heads=None, calibration=calibration, golden=(), trained_on=None)


def _trained_on(examples: Examples, part: NDArray[np.intp], most: int, prior: PublicPrior | None) -> TrainedOn | None:
    """What the bundle remembers: of more prompts than `most`, those with the smallest keys."""
    if most == 0:
        return None
    rows = np.flatnonzero(part == PARTS.index("fit"))
    rows = np.sort(rows[np.argsort(examples.key[rows], kind="stable")][:most])
    codes, scale = quantised(examples.embedding[rows])
    used = examples.key[part != PARTS.index("test")]
    return TrainedOn(
        ids=tuple(examples.id[rows]),
        codes=codes,
        scale=scale,
        features=examples.features[rows],
        acceptable=examples.judged()[rows],
        seen=seen_keys(used if prior is None else np.concatenate([used, prior.keys])),
    )


def _judged_apart(examples: Examples, groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """What is kept together when members are chosen. Tasks, where the examples come from several tables: what such a
    router is for is prompts from elsewhere. Otherwise groups of prompts alike."""
    tables = examples.slices.get("table")
    if tables is None or len(set(tables)) < 2:
        return groups
    tasks = [f"{table}: {task}" for table, task in zip(tables, examples.slices["task"], strict=True)]
    return np.asarray(np.unique(tasks, return_inverse=True)[1], np.intp)


def _promising(bundle: Bundle, rows: Examples, config: TrainingConfig, encoder: Encoder) -> Bundle:
    """The bundle with its calibration set, the thresholds found on it, and golden predictions."""
    calibration = _calibration_set(bundle, rows, config.max_weight)
    thresholds, fallback = (
        promised_thresholds(
            calibration, bundle.tiers, config.targets, fallback=by_features, confidence=config.confidence
        )
        for by_features in (False, True)
    )
    classifier = Classifier(bundle, EmbeddingMemo(encoder, 1))
    golden = tuple(
        Golden(prompt=prompt, proba=tuple(classifier.predict(read_conversation(prompt=prompt)).proba))
        for prompt in GOLDEN_PROMPTS
    )
    manifest = bundle.manifest.model_copy(update={"thresholds": thresholds, "fallback_thresholds": fallback})
    return replace(bundle, manifest=manifest, calibration=calibration, golden=golden)


def _calibration_set(bundle: Bundle | None, rows: Examples, max_weight: float) -> CalibrationSet:
    """Predictions beside judged outcomes; without a bundle yet, the predictions are blank."""
    unknown = Predictions(np.zeros_like(rows.acceptable), np.zeros_like(rows.acceptable))
    return CalibrationSet(
        predicted=unknown if bundle is None else bundle.predict(rows.embedding, rows.features),
        fallback=unknown if bundle is None else bundle.predict(None, rows.features),
        input_tokens=rows.input_tokens,
        acceptable=rows.judged(),
        weight=rows.weight,
        max_weight=max_weight,
    )
