"""What MLflow is told of a training run and of an evaluation: figures, curves in steps, plots, data set."""

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mlflow
import numpy as np
import pandas as pd
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.entities import Metric
from numpy.typing import NDArray

from serving.classifier.bundle import Bundle, Threshold
from serving.routing.costs import unit_cost
from training.config import TrainingConfig
from training.data import Data
from training.evaluation.curves import Curve, curve_by_mu
from training.evaluation.evaluation import Evaluation
from training.evaluation.judged import Judged
from training.evaluation.naming import flat_metrics
from training.evaluation.plots import curve_figure, reliability_figure, share_figure
from training.fitting.examples import PARTS
from training.registry import BUNDLE_ARTIFACT, EVALUATIONS, EXPERIMENT, Registry

MU_STEPS: Final = np.concatenate([[0.0], np.logspace(-3, 3, 61)])
"""μ of each step of the curves `curve/…`, times the cost of a call with 1,000 tokens in and out at the top tier: the
same step means the same eagerness to save in every version, whatever its prices."""
_COST_STEPS: Final = np.arange(0, 1001, 20)


@dataclass(frozen=True)
class TrainingRun:
    """What a training run made.

    part: int (n,), index into PARTS of every prompt. bundle: as it is in `folder`. judged: the test part.
    """

    data: Data
    config: TrainingConfig
    part: NDArray[np.intp]
    bundle: Bundle
    folder: Path
    judged: Judged
    evaluation: Evaluation
    card: str


def log_training(registry: Registry, made: TrainingRun) -> str:
    """One run a training: the whole configuration, every figure, curves, plots, data set, bundle. Gives its id."""
    data, bundle, judged, evaluation = made.data, made.bundle, made.judged, made.evaluation
    names = data.ladder.names
    with mlflow.start_run(experiment_id=registry.experiment_id(EXPERIMENT), run_name=data.name) as run:
        mlflow.log_params(dict(_flat(made.config.model_dump(mode="json"))))
        mlflow.log_params({"data": data.name, "ladder": " < ".join(names), "prompts": len(made.part)})
        digests = {
            "dataset_digest": bundle.manifest.dataset_digest,
            "outcomes_digest": judged.examples.digest(),
            "git_commit": _git_commit(),
        }
        mlflow.set_tags(digests)
        _log_data(data, bundle.manifest.dataset_digest, "training")
        mlflow.log_metrics(bundle.manifest.metrics)
        on = judged.take(judged.speaking)
        mlflow.log_figure(reliability_figure(judged, names), "plots/reliability.png")
        if evaluation.curve is not None:
            by_mu = curve_by_mu(on, MU_STEPS / (unit_cost(data.ladder.tiers) or 1.0))
            mlflow.MlflowClient(registry.uri).log_batch(
                run.info.run_id, metrics=list(_curves(evaluation, by_mu, names))
            )
            mlflow.log_figure(curve_figure(evaluation), "plots/quality_cost.png")
            mlflow.log_figure(share_figure(by_mu, names), "plots/shares.png")
        mlflow.log_text(made.card, "model_card.md")
        parts = dict(zip(PARTS, map(int, np.bincount(made.part, minlength=len(PARTS))), strict=True))
        mlflow.log_dict({"parts": parts}, "split.json")
        mlflow.log_artifacts(str(made.folder / BUNDLE_ARTIFACT), BUNDLE_ARTIFACT)
        return str(run.info.run_id)


def log_evaluation(
    registry: Registry,
    router: str,
    data: Data,
    outcomes_digest: str,
    evaluation: Evaluation,
    thresholds: Sequence[Threshold],
) -> int:
    """One run an evaluation; gives how often these outcomes have been looked at, trainings' own test parts included."""
    with mlflow.start_run(experiment_id=registry.experiment_id(EVALUATIONS), run_name=f"{router} on {data.name}"):
        mlflow.log_params({"router": router, "data": data.name, "ladder": " < ".join(data.ladder.names)})
        mlflow.set_tags({"outcomes_digest": outcomes_digest, "router": router, "git_commit": _git_commit()})
        _log_data(data, outcomes_digest, "evaluation")
        mlflow.log_metrics(flat_metrics(evaluation, thresholds))
        if evaluation.curve is not None:
            mlflow.log_figure(curve_figure(evaluation), "plots/quality_cost.png")
    return registry.looks(outcomes_digest)


def logged_curve(registry: Registry, run_id: str, name: str) -> "pd.Series[float]":
    """The values of `curve/{name}` that a run logged, by step; empty where it has none."""
    history = mlflow.MlflowClient(registry.uri).get_metric_history(run_id, f"curve/{name}")
    return pd.Series({metric.step: metric.value for metric in history}, dtype=float).sort_index()


def _curves(evaluation: Evaluation, by_mu: Curve, names: Sequence[str]) -> Iterator[Metric]:
    """In steps, so that the compare view overlays versions: along μ, and quality by thousandths of the top's cost."""
    now = int(time.time() * 1000)
    priced = evaluation.costs != "unknown"
    along_mu = {"quality": by_mu.quality} | ({"cost": by_mu.cost} if priced else {})
    along_mu |= {f"share.{name}": by_mu.share[:, i] for i, name in enumerate(names)}
    for name, values in along_mu.items():
        known = ((step, float(value)) for step, value in enumerate(values) if np.isfinite(value))
        yield from (Metric(f"curve/{name}", value, now, step) for step, value in known)
    if not priced or evaluation.curve is None:
        return
    at_cost = evaluation.curve.best_at(_COST_STEPS / 1000)
    for step, quality in zip(_COST_STEPS, at_cost, strict=True):
        if np.isfinite(quality):
            yield Metric("curve/quality_at_cost", float(quality), now, int(step))


def _log_data(data: Data, digest: str, context: str) -> None:
    mlflow.log_input(
        MetaDataset(LocalArtifactDatasetSource(str(data.path)), name=data.name, digest=digest[:32]), context
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _git_commit() -> str:
    """The commit of the code that runs, with `-dirty` when it was changed; `unknown` where it is not a git checkout."""
    checkout = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != checkout:  # installed inside somebody else's checkout
            return "unknown"
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
