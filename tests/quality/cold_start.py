"""What do a team's first labels add to the outcomes in the box, and the box to them?"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from serving.classifier.heads import Heads
from tests.quality.fitted import CONFIG, fitted, predicted, prior_for, public_outcomes
from tests.quality.section import Bar, Section, number
from tests.quality.tables import Sources, Table, held_out, named
from training.evaluation.ranking import apgr
from training.fitting.heads import Recipe, fit_heads

TABLES = ("MMLU", "GSM8K", "RouterArena")  # none of their prompts are in the box
LABELS = (0, 50, 200, 1000, 5000)
DRAWS = 5
KINDS = ("the box alone", "own labels alone", "both")


def measure(sources: Sources) -> Section:
    """APGR by number of own labels; each the mean of `DRAWS` splits, the labels drawn from the part not judged on."""
    default = fit_heads(public_outcomes(), Recipe(CONFIG.heads, "kernel", None, CONFIG.seed))
    curves = {name: _curves(named(name), sources, default) for name in TABLES}
    rows, behind = [], []
    for name, curve in curves.items():
        for labels, drawn in curve.items():
            means = {kind: values.mean() for kind, values in drawn.items()}
            better = max((kind for kind in KINDS[:2] if kind in drawn), key=lambda kind: means[kind])
            difference = drawn["both"] - drawn[better]
            error = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference)) if labels else 0.0
            if difference.mean() + error < 0:
                behind.append(f"{name} at {labels:,}")
            rows.append(
                [name, f"{labels:,}", *(number(means.get(kind)) for kind in KINDS),
                 f"{difference.mean():+.3f} ± {error:.3f}"]
            )  # fmt: skip
    return Section(
        title="Cold start",
        text=f"""
            APGR with N labelled prompts of a table's own, of tables that the outcomes in the box know nothing
            of: from the box alone, from the labels alone, and as `tierwise train --logs` does it. Means of
            {DRAWS} random splits; the last column is what both are ahead of the better of the two, with its
            95 % interval over splits.
        """,
        header=["", "own labels", *KINDS, "both, less the better one"],
        rows=rows,
        bars=[Bar("cold start, where both together are behind with 95 % confidence", ", ".join(behind) or "nowhere",
                  "nowhere", not behind)],
        figures={"cold-start": _figure(curves)},
    )  # fmt: skip


def _curves(table: Table, sources: Sources, default: Heads) -> dict[int, dict[str, NDArray[np.float64]]]:
    """By number of labels and kind, the APGR of every draw, (DRAWS,)."""
    examples, groups = sources.examples(table), sources.groups(table)
    prior = prior_for(examples)
    found: dict[int, dict[str, list[float]]] = {}
    for seed in range(DRAWS):
        test = held_out(table, examples, groups, seed)
        judged, order = examples.take(test), np.random.default_rng(seed).permutation(np.flatnonzero(~test))
        alone = predicted(default, judged).proba
        for labels in LABELS:
            if labels > len(order):
                continue
            drawn = found.setdefault(labels, {})
            drawn.setdefault(KINDS[0], []).append(_apgr(alone, judged.acceptable))
            if labels == 0:
                drawn.setdefault(KINDS[2], []).append(_apgr(alone, judged.acceptable))
                continue
            own = order[:labels]
            for kind, start in ((KINDS[1], None), (KINDS[2], prior)):
                heads = fitted(examples.take(own), groups[own], prior=start, members="kernel")
                drawn.setdefault(kind, []).append(_apgr(predicted(heads, judged).proba, judged.acceptable))
    return {labels: {kind: np.array(values) for kind, values in of.items()} for labels, of in found.items()}


def _apgr(proba: NDArray[np.floating], acceptable: NDArray[np.floating]) -> float:
    order = np.argsort(-(proba[:, -1] - proba[:, 0]), kind="stable")
    gain = np.concatenate([[0.0], np.cumsum((acceptable[:, -1] - acceptable[:, 0])[order], dtype=np.float64)])
    weak, strong = acceptable.mean(axis=0, dtype=np.float64)[[0, -1]]
    return apgr(np.linspace(0, 1, len(gain)), weak + gain / len(order), float(weak), float(strong))


def _figure(curves: Mapping[str, Mapping[int, Mapping[str, NDArray[np.float64]]]]) -> Figure:
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for panel, (name, curve) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for kind in KINDS:
            at = [labels for labels, drawn in curve.items() if kind in drawn]
            values = [curve[labels][kind] for labels in at]
            error = [1.96 * drawn.std(ddof=1) / np.sqrt(len(drawn)) for drawn in values]
            panel.errorbar(
                [max(n, 10) for n in at], [v.mean() for v in values], error, label=kind, capsize=2, marker="o"
            )
        panel.axhline(0.5, color="grey", linestyle="--")
        panel.set(title=name, xscale="log", xlabel="own labels (0 at the left)", ylabel="APGR")
        panel.legend(fontsize=8)
    return figure
