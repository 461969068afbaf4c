"""The model card: what a version says of itself on its page in MLflow."""

from collections.abc import Iterator, Sequence
from typing import Final

from serving.classifier.bundle import Bundle
from serving.tiers import Tier
from training.data import Data
from training.evaluation.evaluation import ROUTER, Evaluation, Slice, shown_threshold
from training.evaluation.intervals import Estimate

_MOST_FAILURES: Final = 10
MOST_CHARS: Final = 5000  # what MLflow's database keeps of a version's description
_OF_SLICE: Final = ("apgr", "retained_quality", "relative_cost")
_BASELINES: Final = {"prompt_length": "prompt length", "question_length": "question length", "random": "random"}


def model_card(data: Data, bundle: Bundle, evaluation: Evaluation) -> str:
    """Data, licences, figures with 95 % intervals, slices, known failures, and what the promise covers; Markdown.

    At most MOST_CHARS: of many slices the smallest are left out, and the card says how many.
    """
    for rows in (len(evaluation.slices), 20, 10, 5, 0):
        card = "\n".join(_lines(data, bundle, evaluation, rows))
        if len(card) <= MOST_CHARS:
            break
    return card[:MOST_CHARS]


def _lines(data: Data, bundle: Bundle, evaluation: Evaluation, rows: int) -> Iterator[str]:
    manifest = bundle.manifest
    yield f"**Data.** {data.name}, digest `{manifest.dataset_digest[:12]}`. Licence: {data.licence}."
    yield ""
    yield (
        f"**Tiers.** {' < '.join(map(_named, bundle.tiers))}. Acceptable: judged so, or a score of at least "
        f"{manifest.acceptable_from:g}."
    )
    yield ""
    yield (
        f"**Held out.** {evaluation.n:,} prompts with outcomes for every tier, {evaluation.n_labelled:,} with any. "
        "Ends of 95 % intervals in brackets. Costs are relative to always the top tier."
    )
    yield ""
    yield from _targets(bundle, evaluation)
    yield from _ranking(evaluation)
    yield from _tiers(evaluation)
    yield (
        "**What the promise covers.** On requests like the logged ones, with "
        f"{manifest.thresholds[0].confidence:.0%} confidence, the average of all requests retains the target share of "
        "the top tier's quality. Not each slice, not other traffic, not other prices before thresholds are chosen "
        "again, and nothing where the target is refused."
    )
    yield ""
    yield from _slices(evaluation, rows)
    failures = known_failures(bundle, evaluation)
    yield "**Known failures.**"
    yield ""
    yield from (f"- {line}" for line in failures[:_MOST_FAILURES])
    if len(failures) > _MOST_FAILURES:
        yield f"- and {len(failures) - _MOST_FAILURES} more"


def known_failures(bundle: Bundle, evaluation: Evaluation) -> Sequence[str]:
    """Where the figures show that this router should not be trusted; one line that says so if nowhere."""
    found = []
    for threshold in bundle.manifest.thresholds:
        if threshold.mu is None:
            found.append(f"Target {threshold.target:g} is refused: {threshold.refused}.")
        elif _below(evaluation.targets.get(threshold.target, {}).get("retained_quality"), threshold.target):
            found.append(f"Target {threshold.target:g} was missed on the held-out prompts.")
    for name, figures in evaluation.tiers.items():
        auc = figures.get("auc")
        if isinstance(auc, Estimate) and auc.interval is not None and auc.interval[0] <= 0.5:
            found.append(f"P(acceptable) of {name} does not tell good from bad answers (AUC {_shown(auc)}).")
    shown = shown_threshold(bundle.manifest.thresholds)
    found += [
        f"{_slice_name(part)} retains less than {shown.target:g}, with confidence."
        for part in evaluation.slices
        if shown is not None and _below(part.figures.get("retained_quality"), shown.target)
    ]
    return found or ["None that these prompts show with confidence."]


def _below(estimate: Estimate | None, target: float) -> bool:
    """The whole interval is below the target."""
    return estimate is not None and estimate.interval is not None and estimate.interval[1] < target


def _named(tier: Tier) -> str:
    """A tier with its first models."""
    more = f" and {len(tier.models) - 3} more" if len(tier.models) > 3 else ""
    return f"{tier.name} ({', '.join(tier.models[:3])}{more})"


def _targets(bundle: Bundle, evaluation: Evaluation) -> Iterator[str]:
    rows = []
    for t in bundle.manifest.thresholds:
        figures = evaluation.targets.get(t.target, {})
        shown = (_shown(figures.get(name)) for name in ("retained_quality", "relative_cost", "tier_accuracy"))
        rows.append([f"{t.target:g}", "refused" if t.mu is None else f"{t.mu:.4g}", *shown])
    header = ("target", "μ", "retained quality", "relative cost", "cheapest acceptable tier hit")
    yield from _table("Targets of retained quality.", header, rows)


def _ranking(evaluation: Evaluation) -> Iterator[str]:
    router = evaluation.ranking.get(ROUTER)
    if router is None:
        return
    others = [
        f"{label} {_shown(evaluation.ranking[name]['apgr'])}"
        for name, label in _BASELINES.items()
        if name in evaluation.ranking
    ]
    yield (
        f"**Ranking.** APGR {_shown(router['apgr'])}, CPT50 {_shown(router['cpt50'])}, CPT80 "
        f"{_shown(router['cpt80'])}, between the lowest and the top tier. APGR of {'; '.join(others)}."
    )
    yield ""


def _tiers(evaluation: Evaluation) -> Iterator[str]:
    rows = [
        [name, f"{figures['labels']:,}", *(_shown(figures.get(f)) for f in ("acceptable", "auc", "ece", "brier"))]
        for name, figures in evaluation.tiers.items()
    ]
    yield from _table("Probabilities.", ("tier", "labels", "acceptable", "AUC", "ECE", "Brier"), rows)


def _slices(evaluation: Evaluation, most: int) -> Iterator[str]:
    """The largest first."""
    if not evaluation.slices:
        return
    rows = [
        [_slice_name(s), f"{s.n:,}", *(_shown(s.figures.get(f)) for f in _OF_SLICE)]
        for s in sorted(evaluation.slices, key=lambda s: -s.n)[:most]
    ]
    left = len(evaluation.slices) - len(rows)
    title = f"Slices, less {left} smaller ones." if left else "Slices."
    yield from _table(title, ("slice", "prompts", "APGR", "retained quality", "relative cost"), rows)


def _slice_name(part: Slice) -> str:
    return f"{part.kind}: {part.name.replace('|', '/')[:40]}"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """MLflow's page sets no space between columns or below a table, hence some in every cell and a line of it."""
    yield f"**{title}**"
    yield ""
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    yield from (f"| {' | '.join(f'{cell}&ensp;' for cell in row)} |" for row in rows)
    yield from ("", "&nbsp;", "")


def _shown(value: Estimate | int | None) -> str:
    """As `.973 (.963–.984)`."""
    if not isinstance(value, Estimate) or value.value is None:
        return "–"
    ends = "" if value.interval is None else f" ({'–'.join(map(_decimals, value.interval))})"
    return _decimals(value.value) + ends


def _decimals(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
