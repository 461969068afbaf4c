"""How good is a router trained on a table's own outcomes, beside the recipes of the field?"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.quality.fitted import fitted, predicted, prior_for
from tests.quality.judging import judged_on
from tests.quality.recipes import BLEND, RECIPES, View, gains
from tests.quality.section import Bar, Section, estimate, mean_of, number
from tests.quality.tables import Sources, Table, held_out, named
from training.evaluation.baselines.catalogue import scored
from training.evaluation.evaluation import ROUTER
from training.evaluation.figures import ranking_figures
from training.evaluation.intervals import Estimate
from training.fitting.examples import Examples

TABLES = ("MMLU", "GSM8K", "RouterBench", "LLMRouter", "MMLU-Pro", "RouterArena")
SPLITS = 3  # random ones, where the source has none of its own
_ALONE = "router without the prior"
_NAMES = (ROUTER, _ALONE, *RECIPES, BLEND)


@dataclass(frozen=True)
class _Found:
    """apgr, behind: by candidate; of value and ends the mean over the splits. behind: the router less the candidate."""

    apgr: Mapping[str, Estimate]
    behind: Mapping[str, Estimate]


def measure(sources: Sources) -> Section:
    """The router, with and without what it takes from the outcomes in the box, and each recipe, on every table."""
    found = {name: _on(named(name), sources) for name in TABLES}
    means = {who: float(np.mean([found[name].apgr[who].value for name in TABLES])) for who in _NAMES}
    rows = [[who, *(estimate(found[name].apgr[who]) for name in TABLES), number(means[who])] for who in _NAMES]
    best = {name: max((*RECIPES, BLEND), key=lambda who: found[name].apgr[who].value or 0) for name in TABLES}
    rows.append(
        ["router less the best recipe", *(f"{estimate(found[n].behind[best[n]])}, {best[n]}" for n in TABLES), ""]
    )
    lost = [n for n in TABLES if (interval := found[n].behind[best[n]].interval) and interval[1] < 0]
    return Section(
        title="In domain",
        text=f"""
            APGR of routers trained on the table itself: the source's own split where it has one, otherwise
            the mean over {SPLITS} random splits 70/30 by prompt group (the ends of the intervals are means
            too). The same prompts and the same bootstrap draws for all rows. The recipes learn the gain of
            the strong model; the router has a head for each.
        """,
        header=["", *TABLES, "mean"],
        rows=rows,
        bars=[
            Bar("in domain, mean APGR of six tables", number(means[ROUTER]), "≥ .70", means[ROUTER] >= 0.70),
            Bar("in domain, tables where a recipe is ahead with 95 % confidence", ", ".join(lost) or "none", "none",
                not lost),
        ],
    )  # fmt: skip


def _on(table: Table, sources: Sources) -> _Found:
    examples, groups = sources.examples(table), sources.groups(table)
    texts = sources.texts(table, examples)
    each = [
        _figures(examples, groups, texts, held_out(table, examples, groups, seed))
        for seed in range(1 if table.own_split else SPLITS)
    ]
    return _Found(*({who: mean_of([of[i][who] for of in each]) for who in _NAMES} for i in (0, 1)))


def _figures(
    examples: Examples, groups: NDArray[np.intp], texts: NDArray[np.object_], test: NDArray[np.bool_]
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    train, new = examples.take(~test), examples.take(test)
    views = [View(part.embedding, part.features, texts[rows]) for part, rows in ((train, ~test), (new, test))]
    found = {}
    for who, prior in ((ROUTER, prior_for(examples)), (_ALONE, None)):
        proba = predicted(fitted(train, groups[~test], prior=prior), new).proba
        found[who] = proba[:, -1] - proba[:, 0]
    found |= gains(views[0], train.acceptable[:, -1] - train.acceptable[:, 0], views[1])
    figures = ranking_figures(
        [scored(who, score, 2) for who, score in found.items()], judged_on(new.acceptable, new, groups[test])
    )
    return {who: of["apgr"] for who, of in figures.items()}, {who: of["behind"] for who, of in figures.items()}
