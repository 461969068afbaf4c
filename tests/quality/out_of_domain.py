"""How good is the default router on public tables that it was not trained on?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.classifier.bundle import Bundle
from tests.quality.section import Bar, Section, estimate, number
from tests.quality.tables import Sources, Table, named
from training.evaluation.baselines.catalogue import Candidate, baselines, ranked
from training.evaluation.evaluation import ROUTER
from training.evaluation.figures import ranking_figures
from training.evaluation.judged import Judged, judge
from training.evaluation.ranking import apgr

TABLES = ("MMLU", "GSM8K", "MT-Bench", "RouterArena")
_MEAN_OF = TABLES[:3]
_BASELINES = ("prompt_length", "question_length", "keyword_rule", "random", "oracle")
_WANTED = {"MMLU": 0.58, "GSM8K": 0.58}
_PUBLISHED = {
    "RouteLLM, its best single router": (".597", ".565", ".802", "", ".655"),
    "RouteLLM, best of each column": (".603", ".622", ".802", "", ""),
}
"""Source: Ong et al. 2024, arXiv:2406.18665v4, tables 1 to 3."""


def judged_on(bundle: Bundle, table: Table, sources: Sources) -> Judged:
    """The bundle's lowest and top tier on a pair of models."""
    examples = sources.examples(table)
    tiers = bundle.tiers[:1] + bundle.tiers[-1:]
    return judge(bundle, examples, sources.groups(table), tiers, [0, len(bundle.tiers) - 1])


def measure(bundle: Bundle, sources: Sources, shared: Sequence[int]) -> Section:
    """shared: for each of TABLES, how many of its prompts share eight words in a row with one in the box."""
    of_table = {name: judged_on(bundle, named(name), sources) for name in TABLES}
    found = {}
    for name, judged in of_table.items():
        candidates = [ranked(ROUTER, judged.proba, judged.expected_cost), *baselines(_BASELINES, judged, None, ())[0]]
        found[name] = ranking_figures(candidates, judged)
    rows = [
        [candidate, *(estimate(found[name][candidate]["apgr"]) for name in TABLES),
         _mean([found[name][candidate]["apgr"].value for name in _MEAN_OF])]
        for candidate in (ROUTER, *_BASELINES)
    ]  # fmt: skip
    rows += [
        [f"{ROUTER}, {figure.upper()}", *(estimate(found[name][ROUTER][figure]) for name in TABLES), ""]
        for figure in ("cpt50", "cpt80")
    ]
    rows += [[name, *values] for name, values in _PUBLISHED.items()]
    mean = np.mean([found[name][ROUTER]["apgr"].value for name in _MEAN_OF])
    low, high = np.quantile(np.mean([_draws(of_table[name]) for name in _MEAN_OF], axis=0), [0.025, 0.975])
    bars = [
        Bar("out of domain, mean APGR of three tables", f"{number(mean)} ({number(low)} to {number(high)})", "≥ .655",
            bool(mean >= 0.655)),
        *(Bar(f"out of domain, {name}", estimate(found[name][ROUTER]["apgr"]), f"≥ {number(wanted, 2)}",
              (found[name][ROUTER]["apgr"].value or 0) >= wanted) for name, wanted in _WANTED.items()),
        Bar("test prompts that share eight words with a training prompt", str(sum(shared)), "0", not any(shared)),
    ]  # fmt: skip
    return Section(
        title="Out of domain",
        text="""
            APGR of the default router, which `make serve` trains on the outcomes in the box, on four public
            tables that had no part in it; one weak and one strong model each, judged by the difference of its
            top and its lowest tier. .5 is chance.
        """,
        header=["", *TABLES, "mean of the first three"],
        rows=rows,
        bars=bars,
    )


def _mean(values: Sequence[float | None]) -> str:
    return number(float(np.mean([value for value in values if value is not None])))


def _draws(judged: Judged) -> NDArray[np.float64]:
    """The router's APGR in every resample."""
    candidate: Candidate = ranked(ROUTER, judged.proba, judged.expected_cost)
    assert candidate.by_share is not None  # it ranks
    share = candidate.by_share.along(np.broadcast_to([0.0, 1.0], judged.evidence.shape))
    quality = candidate.by_share.mean_along(judged.quality, judged.evidence)
    return np.array(
        [
            apgr(share.totals(weight), quality.totals(weight), *judged.tier_quality(weight)[[0, -1]])
            for weight in judged.resamples
        ]
    )
