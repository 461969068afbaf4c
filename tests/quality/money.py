"""What does routing save at real prices a call, and what would single models and mixtures of two save?"""

from collections.abc import Sequence

import numpy as np

from serving.routing.costs import expected_costs
from serving.tiers import Tier
from tests.quality.fitted import cross_fitted
from tests.quality.judging import judged_on
from tests.quality.section import Bar, Section, estimate, number
from tests.quality.tables import Sources, Table, named
from training.evaluation.baselines.catalogue import baselines, ranked
from training.evaluation.evaluation import ROUTER
from training.evaluation.figures import QUALITIES, cost_figures
from training.evaluation.judged import Judged

TABLES = ("RouterArena", "RouterBench", "RouterBench, three tiers", "RouterBench, five models",
          "RouterBench, eleven models")  # fmt: skip
_BASELINES = ("mixtures", "random", "oracle")


def measure(sources: Sources) -> Section:
    """Relative cost at 95, 98 and 99 % of the strongest tier's quality; scores by heads fitted on other prompts."""
    rows: list[Sequence[str]] = []
    bars = []
    for name in TABLES:
        judged = _judged(named(name), sources)
        candidates = [ranked(ROUTER, judged.proba, judged.expected_cost), *baselines(_BASELINES, judged, None, ())[0]]
        found = cost_figures(candidates, judged)
        for candidate in candidates:
            costs = [found[candidate.name][quality]["relative_cost"] for quality in QUALITIES]
            rows.append([name, candidate.name, *(estimate(cost) for cost in costs)])
        rows.append([name, "best single tier", *(number(_single(judged, quality)) for quality in QUALITIES)])
        if name == "RouterArena":  # the better model is the cheaper one: nothing to route
            continue
        ahead = (found[ROUTER][0.95]["relative_cost"].value or 1) < (
            found["mixtures"][0.95]["relative_cost"].value or 1
        )
        bars.append(Bar(f"money, {name}: cost at 95 %", estimate(found[ROUTER][0.95]["relative_cost"]),
                        f"below mixtures, {estimate(found['mixtures'][0.95]['relative_cost'])}", ahead))  # fmt: skip
    return Section(
        title="Money",
        text="""
            Cost at 95, 98 and 99 % of the strongest tier's quality, as a share of always using it, at the
            prices that were paid for each call. Scores are cross-fitted, five parts; the threshold is chosen in
            hindsight, for all alike, so this is what a ranking allows; what a promise costs beyond it is above.
            `mixtures` is the convex hull of single models: lots drawn between two. In RouterArena the better
            model is also the cheaper one.
        """,
        header=["", "", *(f"{quality:.0%}" for quality in QUALITIES)],
        rows=rows,
        bars=bars,
    )


def _judged(table: Table, sources: Sources) -> Judged:
    examples, found = sources.examples(table), cross_fitted(table, sources)
    return judged_on(
        found.proba,
        examples,
        sources.groups(table),
        _expected(examples.cost_usd, found.output_tokens, examples.input_tokens),
    )


def _expected(cost: np.ndarray, output_tokens: np.ndarray, input_tokens: np.ndarray) -> np.ndarray:
    """Expected cost of each prompt and tier: the tier's mean cost, scaled by how long its answer is expected to be."""
    tiers = tuple(
        Tier(name=f"tier{i}", models=("x",), input_pico_usd=1, output_pico_usd=3) for i in range(cost.shape[1])
    )
    relative = expected_costs(tiers, input_tokens, output_tokens)
    return np.asarray(relative / relative.mean(axis=0) * cost.mean(axis=0))


def _single(judged: Judged, quality: float) -> float | None:
    """Relative cost of the cheapest single tier that retains the quality."""
    retained = judged.quality.mean(axis=0) / judged.quality[:, -1].mean()
    costs = judged.cost.mean(axis=0) / judged.cost[:, -1].mean()
    enough = costs[retained >= quality]
    return float(enough.min()) if len(enough) else None
