"""When an answer was acceptable: one logged request → a label, its trust and its weight for each tier."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serving.tiers import PICO_PER_USD
from training.config import FeedbackWeights
from training.logs.record import Outcome

Source = Literal["acceptable", "score", "feedback"]


@dataclass(frozen=True)
class Labels:
    """What one request says of every tier, cheapest first; arrays float64 (k,).

    acceptable: share of the tier's answers that were acceptable, NaN where nobody tried: masked, not guessed.
    trust: 1 for a judged outcome, less for a complaint that only hints at one. weight: clipped inverse
    propensity, NaN where none was logged. output_tokens, cost_usd: means, NaN where unknown. sources: of each
    tier's labels.
    """

    acceptable: NDArray[np.float64]
    trust: NDArray[np.float64]
    weight: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    sources: tuple[frozenset[Source], ...]


@dataclass(frozen=True)
class Labeller:
    """Turns the outcomes of a request into labels for the tiers of a ladder.

    acceptable_from: the least acceptable score; None takes a score as it is, as that much of an acceptable answer.
    """

    tiers: tuple[str, ...]
    acceptable_from: float | None
    feedback_weight: FeedbackWeights
    max_weight: float

    def __call__(self, outcomes: Sequence[Outcome]) -> Labels:
        """The labels of one request. Answers of models outside the ladder say nothing."""
        answers: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in outcomes:
            if outcome.tier is not None:
                answers[outcome.tier].append(outcome)
        per_tier = [self._label(answers[tier]) for tier in self.tiers]
        acceptable, trust, weight, output_tokens, cost_usd = np.array([numbers for numbers, _ in per_tier]).T
        sources = tuple(sources for _, sources in per_tier)
        return Labels(acceptable, trust, weight, output_tokens, cost_usd, sources)

    def _label(self, answers: Sequence[Outcome]) -> tuple[tuple[float, ...], frozenset[Source]]:
        """The numbers of one tier in the order of `Labels`, and their sources."""
        tokens = _mean([length for answer in answers if (length := _output_tokens(answer)) is not None])
        cost = _mean([a.cost_pico_usd / PICO_PER_USD for a in answers if a.cost_pico_usd is not None])
        judged = [(answer, judgement) for answer in answers if (judgement := self._judge(answer)) is not None]
        if not judged:
            return (np.nan, 1.0, np.nan, tokens, cost), frozenset()
        acceptable = _mean([acceptable for _, (acceptable, _, _) in judged])
        trust = _mean([trust for _, (_, trust, _) in judged])
        weight = _mean([self._weight(a.propensity) for a, _ in judged if a.propensity is not None])
        return (acceptable, trust, weight, tokens, cost), frozenset(source for _, (_, _, source) in judged)

    def _judge(self, answer: Outcome) -> tuple[float, float, Source] | None:
        """Acceptable (0 or 1, or a grade between), trust and source; None without an outcome."""
        if answer.acceptable is not None:
            return float(answer.acceptable), 1.0, "acceptable"
        if answer.score is not None:
            graded = answer.score if self.acceptable_from is None else float(answer.score >= self.acceptable_from)
            return graded, 1.0, "score"
        if answer.feedback is not None:
            return 0.0, float(getattr(self.feedback_weight, answer.feedback.kind)), "feedback"
        return None

    def _weight(self, propensity: float) -> float:
        return min(1 / propensity, self.max_weight)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else np.nan


def _output_tokens(answer: Outcome) -> float | None:
    """As the provider counted them, or four characters to a token."""
    if answer.usage.output_tokens is not None:
        return float(answer.usage.output_tokens)
    return None if answer.response_chars is None else max(answer.response_chars / 4, 1.0)
