"""Are the probabilities true, in a router's own domain and away from it?"""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from serving.classifier.bundle import Bundle
from tests.quality.fitted import fitted, predicted, prior_for
from tests.quality.judging import judged_on
from tests.quality.section import Bar, Section, estimate, mean_of, number
from tests.quality.tables import Sources, Table, held_out, named
from training.evaluation.figures import tier_figures
from training.evaluation.intervals import Estimate
from training.fitting.examples import Examples

IN_DOMAIN = ("MMLU", "RouterBench", "LLMRouter", "MMLU-Pro")  # those with enough prompts
OUT_OF_DOMAIN = ("MMLU", "GSM8K", "RouterArena")
LABELS = 2000
DRAWS = 5
_MOST = 0.03


def measure(bundle: Bundle, sources: Sources) -> Section:
    """Debiased ECE per tier: of routers trained on 2,000 labelled prompts, and of the default router elsewhere."""
    rows: list[list[str]] = []
    worst: list[float] = []
    pictures = {}
    for name in IN_DOMAIN:
        drawn = [_in_domain(named(name), sources, seed) for seed in range(DRAWS)]
        errors = [mean_of([_errors(*each)[tier] for each in drawn]) for tier in range(2)]
        worst += [error.value or 0.0 for error in errors]
        rows.append([f"{name}, own labels", f"{len(drawn[0][1]):,}", *map(estimate, errors)])
        pictures[name] = drawn[0][0], drawn[0][1].acceptable
    for name in OUT_OF_DOMAIN:
        examples = sources.examples(named(name))
        proba = bundle.predict(examples.embedding, examples.features).proba[:, [0, -1]]
        errors = _errors(proba, examples, sources.groups(named(name)))
        rows.append([f"{name}, default router", f"{len(examples):,}", *map(estimate, errors)])
        pictures[f"{name}, default router"] = proba, examples.acceptable
    return Section(
        title="Calibration",
        text=f"""
            Debiased expected calibration error per tier ([definition](metrics.md)): of routers trained on
            {LABELS:,} labelled prompts of the table, on the rest of it (the mean of {DRAWS} draws; the ends of
            the intervals are means too), and of the default router on tables it knows nothing of. In the latter
            an answer counts as acceptable by other standards, of other models: these probabilities should be
            read as a ranking.
        """,
        header=["", "prompts", "weak tier", "strong tier"],
        rows=rows,
        bars=[Bar("calibration, largest error of a tier in domain", number(max(worst)), f"≤ {number(_MOST, 2)}",
                  max(worst) <= _MOST)],
        figures={"reliability": _figure(pictures)},
    )  # fmt: skip


def _in_domain(table: Table, sources: Sources, seed: int) -> tuple[NDArray[np.float64], Examples, NDArray[np.intp]]:
    examples, groups = sources.examples(table), sources.groups(table)
    test = held_out(table, examples, groups, seed)
    own = np.random.default_rng(seed).permutation(np.flatnonzero(~test))[:LABELS]
    heads = fitted(examples.take(own), groups[own], prior=prior_for(examples))
    judged = examples.take(test)
    return predicted(heads, judged).proba, judged, groups[test]


def _errors(proba: NDArray[np.floating], examples: Examples, groups: NDArray[np.intp]) -> list[Estimate]:
    """The debiased ECE of the weak and of the strong tier."""
    figures = tier_figures(judged_on(proba, examples, groups), ("weak", "strong"))
    return [ece for tier in ("weak", "strong") if isinstance(ece := figures[tier]["ece"], Estimate)]


def _figure(pictures: dict[str, tuple[NDArray[np.floating], NDArray[np.floating]]]) -> Figure:
    """Share acceptable against predicted, ten equally filled bins; the bars are two standard errors."""
    columns = 4
    figure = Figure(figsize=(3.2 * columns, 3 * -(-len(pictures) // columns)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(-(-len(pictures) // columns), columns)).ravel()
    for panel in panels[len(pictures) :]:
        panel.set_visible(False)
    for panel, (name, (proba, outcome)) in zip(panels, pictures.items(), strict=False):
        panel.plot([0, 1], [0, 1], color="grey", linestyle="--")
        for tier, label in enumerate(("weak", "strong")):
            parts = np.array_split(np.argsort(proba[:, tier]), 10)
            x = [proba[part, tier].mean() for part in parts]
            y = [outcome[part, tier].mean() for part in parts]
            error = [2 * outcome[part, tier].std() / np.sqrt(len(part)) for part in parts]
            panel.errorbar(x, y, error, label=label, marker="o", markersize=3, capsize=2)
        panel.set(title=name, xlim=(0, 1), ylim=(0, 1), xlabel="predicted", ylabel="acceptable")
        panel.legend(fontsize=8)
    return figure
