"""The story of a training run: read → label → embed → fit → calibrate → choose thresholds → evaluate → register."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.entities import Metric
from numpy.typing import NDArray

from serving.classifier.bundle import Bundle, write_bundle
from serving.classifier.encoder import Encoder
from serving.errors import BundleError, RegistryError
from training.config import TrainingConfig
from training.encoders import DEFAULT_ENCODER, build_default_encoder
from training.evaluation.comparison import Comparison, compare
from training.evaluation.metrics import Curve, complete, policy_metrics, quality_cost_curve, tier_metrics
from training.evaluation.plots import curve_figure, reliability_figure
from training.fitting.embeddings import EmbeddingStore
from training.fitting.examples import PARTS, Examples, prompt_groups, split_parts
from training.fitting.from_logs import read_examples
from training.fitting.router import fit_bundle
from training.labelling.outcomes import Labeller
from training.logs.ladder import Ladder
from training.public_outcomes import read_public_outcomes
from training.registry import BUNDLE_ARTIFACT, Registry

Say = Callable[[str], None]


@dataclass(frozen=True)
class Data:
    """What is trained on, and its ladder. `logs` is None for the public outcomes at `path`."""

    name: str
    path: Path
    ladder: Ladder
    logs: tuple[Path, ...] | None


@dataclass(frozen=True)
class Trained:
    """What a run produced."""

    version: int
    run_id: str
    metrics: Mapping[str, float]
    bundle: Bundle
    promoted: bool
    comparison: Comparison | None


def home_encoder(home: Path) -> Encoder:
    """The default encoder, built under `home` on first use."""
    folder = home / "encoders" / DEFAULT_ENCODER.digest
    build_default_encoder(folder)
    return Encoder.load(folder, expected=DEFAULT_ENCODER)


def train(data: Data, home: Path, config: TrainingConfig, *, promote: bool, force: bool, say: Say) -> Trained:
    """One run, from data to a registered version, promoted if asked for and not worse than the champion.

    Raises LabelError, InputError or EncoderError before anything is registered.
    """
    encoder = home_encoder(home)
    examples = _examples(data, home, config, encoder, say)
    groups = prompt_groups(examples, config.same_prompt_cosine)
    part = split_parts(examples, groups, config.split)
    say(f"{len(examples):,} prompts in {groups.max() + 1:,} groups: " + _counted(part))
    test = part == PARTS.index("test")

    with tempfile.TemporaryDirectory(prefix="tierwise-") as folder:
        bundle = fit_bundle(Path(folder) / BUNDLE_ARTIFACT, examples, part, data.ladder.tiers, config, encoder)
        held_out = examples.take(test)
        metrics = _metrics(bundle, held_out)
        manifest = bundle.manifest.model_copy(update={"metrics": metrics})
        bundle = write_bundle(Path(folder) / BUNDLE_ARTIFACT, replace(bundle, manifest=manifest))
        registry = Registry(home)
        run_id = _log_run(registry, data, config, examples, part, bundle, held_out, Path(folder))
    version = registry.register(run_id, _description(data, bundle), {"dataset_digest": bundle.manifest.dataset_digest})
    promoted, comparison = False, None
    if promote:
        comparison = _against_champion(registry, bundle, held_out, groups[test])
        promoted = _promotes(registry, version, comparison, force=force, say=say)
    return Trained(version, run_id, metrics, bundle, promoted, comparison)


def _examples(data: Data, home: Path, config: TrainingConfig, encoder: Encoder, say: Say) -> Examples:
    labeller = Labeller(
        tiers=data.ladder.names,
        acceptable_from=data.ladder.acceptable_from or config.acceptable_from,
        feedback_weight=config.feedback_weight,
        max_weight=config.max_weight,
    )
    if data.logs is None:
        tier_of = {model: tier.name for tier in data.ladder.tiers for model in tier.models}
        examples, summary = read_public_outcomes(data.path, encoder.identity, labeller, tier_of)
    else:
        store = EmbeddingStore(home / "embeddings", encoder)
        examples, summary = read_examples(data.logs, data.ladder, labeller, store)
    say(f"labels:\n{summary}")
    return examples


def _counted(part: NDArray[np.intp]) -> str:
    return ", ".join(f"{count:,} to {name}" for name, count in zip(PARTS, np.bincount(part, minlength=4), strict=True))


def _metrics(bundle: Bundle, held_out: Examples) -> dict[str, float]:
    proba = bundle.predict(held_out.embedding, held_out.features).proba
    names = [tier.name for tier in bundle.tiers]
    return {
        **tier_metrics(proba, held_out, names),
        **policy_metrics(bundle, held_out.take(complete(held_out)), bundle.manifest.thresholds),
    }


def _log_run(
    registry: Registry,
    data: Data,
    config: TrainingConfig,
    examples: Examples,
    part: NDArray[np.intp],
    bundle: Bundle,
    held_out: Examples,
    folder: Path,
) -> str:
    """One MLflow run: the whole config, metrics, the curve step by step, data set, plots, bundle. Gives its id."""
    judged = held_out.take(complete(held_out))
    with mlflow.start_run(experiment_id=registry.experiment_id(), run_name=data.name) as run:
        mlflow.log_params(dict(_flat(config.model_dump(mode="json"))))
        mlflow.log_params({"data": data.name, "ladder": " < ".join(data.ladder.names), "prompts": len(examples)})
        mlflow.set_tags({"dataset_digest": bundle.manifest.dataset_digest, "git_commit": _git_commit()})
        source = LocalArtifactDatasetSource(str(data.path))
        mlflow.log_input(MetaDataset(source, name=data.name, digest=bundle.manifest.dataset_digest[:32]), "training")
        mlflow.log_metrics(bundle.manifest.metrics)
        proba = bundle.predict(held_out.embedding, held_out.features).proba
        mlflow.log_figure(reliability_figure(proba, held_out, data.ladder.names), "plots/reliability.png")
        if len(judged):
            curve = quality_cost_curve(bundle, judged)
            _log_curve(registry, run.info.run_id, curve)
            mlflow.log_figure(curve_figure(curve), "plots/quality_cost.png")
        mlflow.log_dict(
            {"parts": dict(zip(PARTS, map(int, np.bincount(part, minlength=4)), strict=True))}, "split.json"
        )
        mlflow.log_artifacts(str(folder / BUNDLE_ARTIFACT), BUNDLE_ARTIFACT)
        return str(run.info.run_id)


def _log_curve(registry: Registry, run_id: str, curve: Curve) -> None:
    """Step by step along μ, so that the compare view overlays the curves of versions."""
    now = int(time.time() * 1000)
    points = [
        Metric(f"curve.{name}", float(value), now, step)
        for name in ("quality", "cost", "top_share")
        for step, value in enumerate(getattr(curve, name))
        if not np.isnan(value)
    ]
    mlflow.MlflowClient(registry.uri).log_batch(run_id, metrics=points)


def _against_champion(
    registry: Registry, bundle: Bundle, held_out: Examples, groups: NDArray[np.intp]
) -> Comparison | None:
    champion = next((v.number for v in registry.versions() if "champion" in v.aliases), None)
    if champion is None:
        return None
    try:
        with registry.bundle(champion) as (_, champion_bundle):
            return compare(bundle, champion_bundle, held_out, groups)
    except (BundleError, RegistryError):  # damaged, deleted, or written by another version of Tierwise
        return None


def _promotes(registry: Registry, version: int, comparison: Comparison | None, *, force: bool, say: Say) -> bool:
    """Promote the version unless the champion is better with confidence, or cannot be compared with it."""
    first = not any("champion" in v.aliases for v in registry.versions())
    if comparison is not None:
        say(
            f"against the champion on {comparison.labels:,} held-out labels: Brier score "
            f"{comparison.difference:+.4f} (95 % interval {comparison.low:+.4f} to {comparison.high:+.4f})"
        )
    refusal = None
    if not first and comparison is None:
        refusal = (
            "it cannot be compared with the champion (whose bundle cannot be read, or has other tiers or another "
            "encoder; or no held-out labels)"
        )
    elif comparison is not None and comparison.worse:
        refusal = "it is worse than the champion"
    if refusal and not force:
        say(f"version {version} is not promoted: {refusal}; --force promotes it all the same")
        return False
    registry.promote(version, forced=bool(refusal))
    return True


def _description(data: Data, bundle: Bundle) -> str:
    """What the version's page in MLflow says first."""
    lines = [
        f"Trained on **{data.name}** (digest `{bundle.manifest.dataset_digest[:12]}`), tiers "
        + " < ".join(tier.name for tier in bundle.tiers)
        + ".",
        "",
        "| target | μ | |",
        "|---|---|---|",
    ]
    for t in bundle.manifest.thresholds:
        mu = "–" if t.mu is None else f"{t.mu:.4g}"
        lines.append(f"| {t.target:g} | {mu} | {t.refused or f'holds with {t.confidence:.0%} confidence'} |")
    return "\n".join(lines)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _git_commit() -> str:
    """The commit of the code that trains, `unknown` where it is not a git checkout."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
