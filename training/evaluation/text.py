"""How an evaluation is told on a terminal: a verdict, and tables."""

from collections.abc import Iterator
from typing import Final

from training.evaluation.broken_slices import broken_slices, broken_text
from training.evaluation.evaluation import ROUTER, Evaluation, Slice
from training.evaluation.intervals import Estimate
from training.evaluation.report import Subject
from training.text_table import text_table

_WORST: Final = 8


def report_text(evaluation: Evaluation, subject: Subject) -> str:
    """The figures as tables, with the intervals that matter most; slices are those on which the router ranks worst."""
    return "\n".join(_lines(evaluation, subject))


def _lines(evaluation: Evaluation, subject: Subject) -> Iterator[str]:
    yield from _head(evaluation, subject)
    if evaluation.n:
        yield ""
        yield from _candidates(evaluation)
    for name, reason in evaluation.missing.items():
        yield f"no {name}: {reason}"
    yield ""
    rows = [
        [name, f"{figures['labels']:,}", *(_shown(figures.get(f)) for f in ("acceptable", "auc", "ece", "brier"))]
        for name, figures in evaluation.tiers.items()
    ]
    yield from text_table(["tier", "labels", "acceptable", "AUC", "ECE", "Brier"], rows)
    if evaluation.targets:
        yield ""
        yield from _targets(evaluation, subject)
    if evaluation.slices:
        yield ""
        yield from _slices(evaluation)
    if kept := [target for target in evaluation.targets if target not in subject.refused]:
        shown = min(kept, key=lambda target: abs(target - 0.95))
        yield from broken_text(broken_slices(evaluation, shown), shown, subject.tiers[-1])


def _head(evaluation: Evaluation, subject: Subject) -> Iterator[str]:
    split = f", split {subject.split}" if subject.split else ""
    yield f"router {subject.router} on {subject.outcomes}{split}, outcomes {subject.outcomes_digest[:12]}"
    yield (
        f"{evaluation.n:,} prompts with evidence for every tier in {evaluation.groups:,} groups, "
        f"{evaluation.n_labelled:,} labelled; look {subject.looks} at these outcomes"
    )
    yield _seen(subject)
    for name, figures in evaluation.alone.items():
        yield f"{name} for all: quality {_shown(figures['quality'])} ({', '.join(subject.models[name])})"
    if len(evaluation.ranking) > 1:
        yield from _verdict(evaluation)


def _verdict(evaluation: Evaluation) -> Iterator[str]:
    """Which baselines rank prompts better than the router, and which worse, by intervals that exclude zero."""
    better: list[str] = []
    worse: list[str] = []
    untold: list[str] = []
    for name, figures in evaluation.ranking.items():
        interval = figures["behind"].interval
        if name in (ROUTER, "oracle") or figures["apgr"].value is None:
            continue
        if interval is None or interval[0] <= 0 <= interval[1]:
            untold.append(name)
        else:
            (better if interval[1] < 0 else worse).append(name)
    told = (("better than", worse), ("worse than", better), ("not told apart from", untold))
    yield "the router ranks prompts (by APGR, with 95 % confidence)"
    yield from (f"  {how} {_listed(names)}" for how, names in told if names)


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _candidates(evaluation: Evaluation) -> Iterator[str]:
    priced = evaluation.costs != "unknown"
    qualities = list(evaluation.cost[ROUTER])
    figure, told = ("relative_cost", "cost") if priced else ("top_share", "top share")
    header = ["", "APGR", "router ahead by", "CPT50", "CPT80", *(f"{told} at {q:.0%}" for q in qualities)]
    rows = []
    for name, figures in evaluation.ranking.items():
        costs = [evaluation.cost[name][q][figure] for q in qualities]
        behind = None if name == ROUTER else figures["behind"]
        plain = map(_plain, (figures["cpt50"], figures["cpt80"], *costs))
        rows.append([name, _shown(figures["apgr"]), _shown(behind), *plain])
    yield from text_table(header, rows)
    meaning = "cost relative to always the top tier" if priced else "share of calls to the top tier, prices unknown"
    yield f"{meaning}, at the threshold that is best in hindsight (docs/metrics.md)"


def _targets(evaluation: Evaluation, subject: Subject) -> Iterator[str]:
    header = ["target", "retained quality", "relative cost", "tier accuracy", *(f"{t} share" for t in subject.tiers)]
    rows = []
    for target, figures in evaluation.targets.items():
        mark = "*" if target in subject.refused else ""
        shown = [_shown(figures["retained_quality"]), _shown(figures["relative_cost"])]
        rest = [_plain(value) for name, value in figures.items() if name not in ("retained_quality", "relative_cost")]
        rows.append([f"{target:g}{mark}", *shown, *rest])
    yield from text_table(header, rows)
    if subject.refused:
        yield "* refused for want of evidence: figures of the most probable tier, which serves instead"


def _slices(evaluation: Evaluation) -> Iterator[str]:
    worst = sorted(evaluation.slices, key=_rank)[:_WORST]
    rows = [
        [
            f"{s.kind}: {s.name}",
            f"{s.n:,}",
            _shown(s.figures["apgr"]),
            *(_plain(s.figures[f]) for f in ("cpt50", "cpt80")),
        ]
        for s in worst
    ]
    yield from text_table(["slice", "prompts", "APGR", "CPT50", "CPT80"], rows)
    if len(evaluation.slices) > len(worst):
        yield f"and {len(evaluation.slices) - len(worst)} more slices with --json"


def _rank(part: Slice) -> float:
    """Its APGR; last where there is none."""
    value = part.figures["apgr"].value
    return 2.0 if value is None else value


def _seen(subject: Subject) -> str:
    if subject.seen is None:
        return "the router does not remember what it was trained on, so repeats cannot be left out"
    return f"{subject.seen:,} left out that the router was made from; {subject.similar:,} similar to one of those"


def _plain(value: Estimate | int | None) -> str:
    return "–" if not isinstance(value, Estimate) or value.value is None else f"{value.value:.3f}"


def _shown(value: Estimate | int | None) -> str:
    """With its interval."""
    if not isinstance(value, Estimate) or value.interval is None:
        return _plain(value)
    return f"{_plain(value)} [{value.interval[0]:.3f}, {value.interval[1]:.3f}]"
