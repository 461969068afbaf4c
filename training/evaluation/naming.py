"""The names of figures in MLflow and in `bundle.json`.

`section/figure.of`, so that MLflow's page groups them: `policy/` what a target gives, `ranking/` what any threshold
could give, `tier/` how good the probabilities are, `support/` on how many prompts. Ends of a 95 % interval are `.low`
and `.high`.
"""

from collections.abc import Iterator, Sequence

from serving.classifier.bundle import Threshold
from training.evaluation.evaluation import ROUTER, Evaluation
from training.evaluation.intervals import Estimate


def target_suffix(target: float) -> str:
    """`at_95` for .95, `at_99.5` for .995."""
    return f"at_{100 * target:g}"


def flat_metrics(evaluation: Evaluation, thresholds: Sequence[Threshold]) -> dict[str, float]:
    """Every figure of the router that is defined, and the APGR of the baselines, by its full name.

    No costs where prices are unknown: steps of the ladder are not to be compared with dollars.
    """
    unpriced = evaluation.costs == "unknown"
    metrics = dict(_flat(evaluation, thresholds))
    return {name: value for name, value in metrics.items() if not (unpriced and "/relative_cost." in name)}


def _flat(evaluation: Evaluation, thresholds: Sequence[Threshold]) -> Iterator[tuple[str, float]]:
    yield "support/judged_prompts", evaluation.n
    yield "support/labelled_prompts", evaluation.n_labelled
    for threshold in thresholds:
        suffix = target_suffix(threshold.target)
        if threshold.target in evaluation.targets:
            yield f"policy/supported.{suffix}", float(threshold.mu is not None)
        for name, estimate in evaluation.targets.get(threshold.target, {}).items():
            yield from _ends(f"policy/{name}.{suffix}", estimate)
    for candidate, figures in evaluation.ranking.items():
        for name, estimate in figures.items():
            if candidate == ROUTER and name != "behind":
                yield from _ends(f"ranking/{name}", estimate)
            elif name == "apgr" and estimate.value is not None:
                yield f"ranking/{name}.{candidate}", estimate.value
    for quality, figures in evaluation.cost.get(ROUTER, {}).items():
        yield from _ends(f"ranking/relative_cost.{target_suffix(quality)}", figures["relative_cost"])
    for tier, values in evaluation.tiers.items():
        for name, value in values.items():
            if isinstance(value, Estimate):
                yield from _ends(f"tier/{name}.{tier}", value)
            else:
                yield f"tier/{name}.{tier}", float(value)


def _ends(name: str, estimate: Estimate) -> Iterator[tuple[str, float]]:
    if estimate.value is not None:
        yield name, estimate.value
        if estimate.interval is not None:
            yield f"{name}.low", estimate.interval[0]
            yield f"{name}.high", estimate.interval[1]
