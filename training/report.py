"""How a training run and the registry are told to a user, as text and as JSON."""

from collections.abc import Mapping, Sequence

from training.evaluation.naming import target_suffix
from training.pipeline import Trained
from training.registry import Version
from training.text_table import text_table


def trained_json(trained: Trained) -> dict[str, object]:
    """What `tierwise train --json` prints."""
    return {
        "version": trained.version,
        "run_id": trained.run_id,
        "digest": trained.bundle.digest,
        "promoted": trained.promoted,
        "tiers": [tier.name for tier in trained.bundle.tiers],
        "thresholds": [threshold.model_dump() for threshold in trained.bundle.manifest.thresholds],
        "metrics": dict(trained.metrics),
    }


def trained_text(trained: Trained) -> str:
    """What `tierwise train` prints."""
    metrics = trained.metrics
    lines = [f"version {trained.version}{', promoted' if trained.promoted else ''}; MLflow run {trained.run_id}"]
    for name in (tier.name for tier in trained.bundle.tiers):
        auc, brier = (_shown(metrics, f"tier/{figure}.{name}") for figure in ("auc", "brier"))
        lines.append(f"  {name}: AUC {auc}, Brier {brier} on {metrics[f'tier/labels.{name}']:,.0f} held-out labels")
    for threshold in trained.bundle.manifest.thresholds:
        at = target_suffix(threshold.target)
        found = f"μ {threshold.mu:.4g}" if threshold.mu is not None else f"refused: {threshold.refused}"
        quality, cost = (_shown(metrics, f"policy/{figure}.{at}") for figure in ("retained_quality", "relative_cost"))
        lines.append(
            f"  target {threshold.target:.0%}: {found}; held out: quality of the top tier retained {quality} "
            f"at {cost} of its cost"
        )
    return "\n".join(lines)


def versions_text(versions: Sequence[Version]) -> str:
    """What `tierwise routers` prints."""
    columns = ("policy/retained_quality.at_95", "policy/relative_cost.at_95", "ranking/apgr", "support/judged_prompts")
    rows = [["version", "alias", *(name.split("/")[1] for name in columns)]]
    for v in versions:
        refused = v.metrics.get("policy/supported.at_95") == 0
        marks = ["*" if refused and name.startswith("policy/") else "" for name in columns]
        figures = [_shown(v.metrics, name) + mark for name, mark in zip(columns, marks, strict=True)]
        rows.append([str(v.number), ", ".join(v.aliases), *figures])
    lines = list(text_table(rows[0], rows[1:]))
    if any(row[2].endswith("*") for row in rows):
        lines.append("* the target was refused for want of evidence: figures of the most probable tier")
    return "\n".join(lines)


def _shown(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.4g}" if name in metrics else "–"


def version_json(version: Version) -> dict[str, object]:
    """One entry of `tierwise routers --json`."""
    return {
        "version": version.number,
        "run_id": version.run_id,
        "aliases": list(version.aliases),
        "created_ms": version.created_ms,
        "metrics": dict(version.metrics),
        "tags": dict(version.tags),
    }
