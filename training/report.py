"""How a training run, the registry and an exported encoder are told to a user, as text and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final

from training.encoders.export import Exported
from training.evaluation.broken_slices import broken_text
from training.evaluation.evaluation import shown_threshold
from training.evaluation.naming import target_suffix
from training.pipeline import Trained
from training.registry import Version
from training.text_table import text_table

WITHOUT_TARGET: Final = (
    "Where a target is refused the most probable tier serves, mostly the top one. Policies that need no such evidence: "
    "value:USD (what an acceptable answer is worth) and share:MAX_SHARE (of calls to the top tier)."
)

WITHOUT_PRICES: Final = " value needs prices: train with --prices."


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
        "broken_slices": [{"kind": part.kind, "name": part.name, "prompts": part.n} for part in trained.broken],
    }


def trained_text(trained: Trained) -> str:
    """What `tierwise train` prints."""
    metrics = trained.metrics
    lines = [f"version {trained.version}{', promoted' if trained.promoted else ''}; MLflow run {trained.run_id}"]
    for name in (tier.name for tier in trained.bundle.tiers):
        auc, brier = (_shown(metrics, f"tier/{figure}.{name}") for figure in ("auc", "brier"))
        lines.append(f"  {name}: AUC {auc}, Brier {brier} on {metrics[f'tier/labels.{name}']:,.0f} held-out labels")
    priced = all(tier.priced for tier in trained.bundle.tiers)
    for threshold in trained.bundle.manifest.thresholds:
        at = target_suffix(threshold.target)
        quality, cost = (_shown(metrics, f"policy/{figure}.{at}") for figure in ("retained_quality", "relative_cost"))
        found = f"μ {threshold.mu:.4g} a {'USD' if priced else 'step'}" if threshold.mu is not None else "refused"
        lines.append(
            f"  target {threshold.target:.0%}: {found}; on held-out prompts it retains {quality} of the top tier's "
            f"quality at {cost} of its cost"
        )
        if threshold.mu is None:
            lines.append(f"    {threshold.refused}; these are the figures of the most probable tier")
    shown = shown_threshold(trained.bundle.manifest.thresholds)
    if shown is not None:
        lines += broken_text(trained.broken, shown.target, trained.bundle.tiers[-1].name)
    if any(threshold.mu is None for threshold in trained.bundle.manifest.thresholds):
        lines.append(f"  {WITHOUT_TARGET}{'' if priced else WITHOUT_PRICES}")
    return "\n".join(lines)


_COLUMNS: Final = {
    "policy/retained_quality.at_95": "quality retained at .95",
    "policy/relative_cost.at_95": "relative cost",
    "ranking/apgr": "APGR",
    "support/judged_prompts": "prompts judged",
}


def versions_text(versions: Sequence[Version]) -> str:
    """What `tierwise routers` prints."""
    rows = []
    for v in versions:
        refused = v.metrics.get("policy/supported.at_95") == 0
        marks = ["*" if refused and name.startswith("policy/") else "" for name in _COLUMNS]
        figures = [_shown(v.metrics, name) + mark for name, mark in zip(_COLUMNS, marks, strict=True)]
        created = datetime.fromtimestamp(v.created_ms / 1000).astimezone()
        rows.append([str(v.number), ", ".join(v.aliases), f"{created:%Y-%m-%d %H:%M}", v.data, *figures])
    lines = list(text_table(["version", "alias", "trained", "on", *_COLUMNS.values()], rows))
    if any(row[4].endswith("*") for row in rows):
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
        "data": version.data,
        "metrics": dict(version.metrics),
        "tags": dict(version.tags),
    }


def exported_json(exported: Exported) -> dict[str, object]:
    """What `tierwise encoder export --json` prints."""
    return {
        "digest": exported.identity.digest,
        "folder": str(exported.folder),
        "precision": exported.precision,
        "encoder": exported.identity.model_dump(),
        "parity": asdict(exported.parity),
    }


def exported_text(exported: Exported) -> str:
    """What `tierwise encoder export` prints."""
    identity, parity = exported.identity, exported.parity
    return (
        f"{identity.name} {identity.digest[:12]}: {identity.dimension} dimensions, {identity.pooling} pooling, "
        f"{identity.max_tokens} tokens, {exported.precision}\n"
        f"  in {exported.folder}\n"
        f"  against the model itself on {parity.texts} texts: cosine {parity.mean:.4f} in the mean, {parity.least:.4f} "
        f"at least; correlation of the cosines of pairs {parity.pairs:.4f}\n"
        f'  train with it: encoder = "{exported.setting}" in [training], tierwise train --config FILE'
    )
