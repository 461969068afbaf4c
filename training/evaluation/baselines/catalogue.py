"""Which baselines there are, and what each says of the judged prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import FloatArray
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


class _Impossible(Exception):
    """A baseline that cannot be had on these prompts; says why."""


def ranked(name: str, value: FloatArray, cost: FloatArray) -> Candidate:
    """A candidate that predicts an outcome for every tier: value, cost (n, k)."""
    return Candidate(name, _gain_path(value[:, -1] - value[:, 0]), path_of(value, cost))


def scored(name: str, score: FloatArray, tiers: int) -> Candidate:
    """A candidate that only says how hard a prompt is: (n,); it knows the lowest and the top of `tiers`."""
    by_share = _gain_path(score)
    ends = np.array([0, tiers - 1])
    by_cost = Path(ends[by_share.start], by_share.row, ends[by_share.before], ends[by_share.after], by_share.ends)
    return Candidate(name, by_share, by_cost)


def _fixed(name: str, judged: Judged, tier: int) -> Candidate:
    return Candidate(name, None, fixed_path(len(judged), tier))


def _random(judged: Judged) -> Candidate:
    return scored("random", np.zeros(len(judged)), judged.quality.shape[1])


def _mixtures(judged: Judged) -> Candidate:
    alone = judged.tier_quality(np.ones(len(judged))), judged.cost.mean(axis=0)
    if not np.isfinite(alone[0]).all():
        raise _Impossible("some tier has no outcome")
    return Candidate("mixtures", None, path_of(*(np.broadcast_to(means, judged.quality.shape) for means in alone)))


def _keyword_rule(judged: Judged) -> Candidate:
    if np.isnan(judged.examples.rule_words).any():
        raise _Impossible("the texts are not at hand")
    return scored("keyword_rule", keyword_rule(judged.examples), judged.quality.shape[1])


def _oracle(judged: Judged) -> Candidate:
    if not judged.complete.all():
        raise _Impossible("some prompts have no outcome for some tier")
    return ranked("oracle", judged.quality, judged.cost)


def _by_length(name: str, length: Callable[[Examples], FloatArray]) -> Callable[[Judged], Candidate]:
    return lambda judged: scored(name, length(judged.examples), judged.quality.shape[1])


_UNTRAINED: Final[dict[str, Callable[[Judged], Candidate]]] = {
    "cheapest": lambda judged: _fixed("cheapest", judged, 0),
    "strongest": lambda judged: _fixed("strongest", judged, judged.quality.shape[1] - 1),
    "random": _random,
    "mixtures": _mixtures,
    "prompt_length": _by_length("prompt_length", prompt_length),
    "question_length": _by_length("question_length", question_length),
    "keyword_rule": _keyword_rule,
    "oracle": _oracle,
}
LEARNED: Final[dict[str, Callable[[TrainedOn, Examples], NDArray[np.float64] | None]]] = {
    "knn": nearest_neighbours,
    "ridge": ridge,
    "matrix_factorisation": factorisation,
    "mlp": perceptron,
}
BASELINES: Final = (*(name for name in _UNTRAINED if name != "oracle"), *LEARNED, "oracle")


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
        try:
            made = _UNTRAINED[name](judged) if name in _UNTRAINED else _learned(name, judged, trained_on, columns)
            found.append(made)
        except _Impossible as reason:
            missing[name] = str(reason)
    return found, missing


def _learned(name: str, judged: Judged, trained_on: TrainedOn | None, columns: Sequence[int]) -> Candidate:
    if trained_on is None:
        raise _Impossible("the router remembers no prompt it was trained on")
    values = LEARNED[name](trained_on, judged.examples)
    if values is None:
        raise _Impossible("the router remembers too few outcomes to learn it from")
    return ranked(name, values[:, list(columns)], judged.expected_cost)


def _gain_path(gain: FloatArray) -> Path:
    """From all weak to all strong, the largest gain first, every call costing the same."""
    return path_of(np.stack([np.zeros(len(gain)), gain], axis=1), np.broadcast_to([0.0, 1.0], (len(gain), 2)))
