"""Whether a new version is worse than the champion on the same held-out prompts."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.bundle import Bundle
from training.fitting.examples import Examples

_RESAMPLES: Final = 2000


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


def compare(
    new: Bundle, champion: Bundle, held_out: Examples, groups: NDArray[np.intp], *, seed: int = 0
) -> Comparison | None:
    """Paired difference in Brier score over every judged tier, bootstrapped by prompt group.

    The Brier score is proper: neither ranking well nor being well calibrated alone can win it.
    None when the two cannot be compared: other tiers, another encoder, or nothing labelled.
    """
    if [t.name for t in new.tiers] != [t.name for t in champion.tiers]:
        return None
    if new.manifest.encoder != champion.manifest.encoder or np.isnan(held_out.judged()).all():
        return None
    errors = [
        (bundle.predict(held_out.embedding, held_out.features).proba - held_out.judged()) ** 2
        for bundle in (new, champion)
    ]
    gaps = errors[0] - errors[1]
    _, member = np.unique(groups, return_inverse=True)
    sums = np.bincount(member, np.nansum(gaps, axis=1))
    counts = np.bincount(member, (~np.isnan(gaps)).sum(axis=1))
    rng = np.random.default_rng(seed)
    resampled = []
    for _ in range(_RESAMPLES):
        drawn = rng.integers(len(sums), size=len(sums))
        if labels := counts[drawn].sum():
            resampled.append(sums[drawn].sum() / labels)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Comparison(float(np.nanmean(gaps)), float(low), float(high), int(counts.sum()))
