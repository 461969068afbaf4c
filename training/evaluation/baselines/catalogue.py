"""Which baselines there are, and what each says of the judged prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from serving.classifier.heads import FloatArray
from serving.classifier.trained_on import TrainedOn
from serving.errors import InputError
from training.evaluation.baselines.factorisation import factorisation
from training.evaluation.baselines.learned import nearest_neighbours, perceptron, ridge
from training.evaluation.baselines.rules import keyword_rule, prompt_length, question_length
from training.evaluation.judged import Judged
from training.evaluation.paths import Path, fixed_path, path_of
from training.fitting.examples import Examples


@dataclass(frozen=True)
class Candidate:
    """Something that ranks prompts: the router itself, or a baseline.

    by_share: the path that orders prompts by the gain of the strong tier alone, for APGR and CPT; over two tiers.
    by_cost: the path of the rule under expected costs, over all tiers. None where it says nothing of that kind.
    """

    name: str
    by_share: Path | None
    by_cost: Path


def ranked(name: str, value: FloatArray, cost: FloatArray) -> Candidate:
    """A candidate that predicts an outcome for every tier: value, cost (n, k)."""
    return Candidate(name, _gain_path(value[:, -1] - value[:, 0]), path_of(value, cost))


def scored(name: str, score: FloatArray, tiers: int) -> Candidate:
    """A candidate that only says how hard a prompt is: (n,); it knows the cheapest and the top of `tiers`."""
    by_share = _gain_path(score)
    return Candidate(name, by_share, _between_ends(by_share, tiers))


LEARNED: Final[dict[str, Callable[[TrainedOn, Examples], FloatArray]]] = {
    "knn": nearest_neighbours,
    "ridge": ridge,
    "matrix_factorisation": factorisation,
    "mlp": perceptron,
}
RULES: Final[dict[str, Callable[[Examples], FloatArray]]] = {
    "prompt_length": prompt_length,
    "question_length": question_length,
    "keyword_rule": keyword_rule,
}
BASELINES: Final = ("cheapest", "strongest", "random", "mixtures", *RULES, *LEARNED, "oracle")


def chosen(names: str | None) -> tuple[str, ...]:
    """The baselines in a list with commas; all of them for None, none for `none`. Raises InputError for others."""
    if names is None:
        return BASELINES
    asked = () if names == "none" else tuple(name.strip() for name in names.split(","))
    if unknown := [name for name in asked if name not in BASELINES]:
        raise InputError(f"{unknown[0]!r} is not a baseline; there are {', '.join(BASELINES)}", where="--baselines")
    return asked


def baselines(
    names: Sequence[str], judged: Judged, trained_on: TrainedOn | None, columns: Sequence[int]
) -> tuple[list[Candidate], dict[str, str]]:
    """The baselines for the judged prompts, and why those that are missing cannot be had.

    trained_on: what the router remembers; columns: its tiers that answer for those of the ladder.
    """
    found, missing = [], {}
    for name in names:
        made = _made(name, judged, trained_on, columns)
        if isinstance(made, str):
            missing[name] = made
        else:
            found.append(made)
    return found, missing


def _made(name: str, judged: Judged, trained_on: TrainedOn | None, columns: Sequence[int]) -> Candidate | str:
    """A baseline, or the reason why there is none."""
    n, k = judged.quality.shape
    if name == "cheapest":
        return Candidate(name, None, fixed_path(n, 0))
    if name == "strongest":
        return Candidate(name, None, fixed_path(n, k - 1))
    if name == "random":
        return scored(name, np.zeros(n), k)
    if name == "mixtures":
        alone = judged.tier_quality(np.ones(n)), judged.cost.mean(axis=0)
        return Candidate(name, None, path_of(*(np.broadcast_to(means, (n, k)) for means in alone)))
    if name == "oracle":
        if not judged.complete.all():
            return "some prompts have no outcome for some tier"
        return ranked(name, judged.quality, judged.cost)
    if name in RULES:
        if name == "keyword_rule" and np.isnan(judged.examples.rule_words).any():
            return "the texts are not at hand"
        return scored(name, RULES[name](judged.examples), k)
    if trained_on is None:
        return "the router remembers no prompt it was trained on"
    if (~np.isnan(trained_on.acceptable)).sum(axis=0).min() < 2:
        return "the router remembers too few outcomes of some tier"
    return ranked(name, LEARNED[name](trained_on, judged.examples)[:, list(columns)], judged.expected_cost)


def _gain_path(gain: FloatArray) -> Path:
    """From all weak to all strong, the largest gain first, every call costing the same."""
    return path_of(np.stack([np.zeros(len(gain)), gain], axis=1), np.broadcast_to([0.0, 1.0], (len(gain), 2)))


def _between_ends(path: Path, tiers: int) -> Path:
    """A path over two tiers as one between the cheapest and the top of a ladder."""
    ends = np.array([0, tiers - 1])
    return Path(ends[path.start], path.row, ends[path.before], ends[path.after], path.ends)
