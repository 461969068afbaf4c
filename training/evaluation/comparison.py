"""Whether a new version is worse than the champion on the same held-out prompts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.classifier.bundle import Bundle
from training.evaluation.intervals import Resamples, estimated
from training.fitting.examples import Examples


@dataclass(frozen=True)
class Comparison:
    """Brier score of the new version minus the champion's, so that less is better, with a 95 % interval."""

    difference: float
    low: float
    high: float
    labels: int

    @property
    def worse(self) -> bool:
        """Worse with confidence: the whole interval is above zero."""
        return self.low > 0


def compare(new: Bundle, champion: Bundle, held_out: Examples, groups: NDArray[np.intp]) -> Comparison | str:
    """Paired difference in Brier score over every judged tier, bootstrapped by prompt group.

    The Brier score is proper: neither ranking well nor being well calibrated alone can win it.
    The reason in words when the two cannot be compared.
    """
    names, others = ([tier.name for tier in bundle.tiers] for bundle in (new, champion))
    if names != others:
        return f"the champion's tiers are {', '.join(others)}, not {', '.join(names)}"
    if new.manifest.encoder != champion.manifest.encoder:
        return "the champion was trained with another encoder"
    for bundle in (new, champion):  # on prompts that one was made from, or its prior, it would know the answers
        if bundle.trained_on is not None:
            unseen = ~bundle.trained_on.has_seen(held_out.key)
            held_out, groups = held_out.take(unseen), groups[unseen]
    if np.isnan(held_out.judged()).all():
        return "no held-out prompt that both have not seen is labelled"
    errors = [
        (bundle.predict(held_out.embedding, held_out.features).proba - held_out.judged()) ** 2
        for bundle in (new, champion)
    ]
    gaps = errors[0] - errors[1]
    known = ~np.isnan(gaps)
    total, labels = np.where(known, gaps, 0).sum(axis=1), known.sum(axis=1)

    def statistic(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        counted = weight @ labels
        return np.array([weight @ total / counted if counted else np.nan])

    (difference,) = estimated(statistic, Resamples.of(groups))
    if difference.value is None or difference.interval is None:
        return "too few held-out prompts are labelled"
    return Comparison(difference.value, *difference.interval, labels=int(labels.sum()))
