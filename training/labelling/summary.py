"""What the labels of a data set amount to, tier by tier."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from training.labelling.outcomes import Labels


@dataclass
class LabelSummary:
    """Labelled prompts, share acceptable and sources of each tier."""

    tiers: tuple[str, ...]
    labelled: Counter[str] = field(default_factory=Counter)
    acceptable: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, labels: Labels) -> None:
        """Count one request."""
        for tier, share, sources in zip(self.tiers, labels.acceptable, labels.sources, strict=True):
            if not np.isnan(share):
                self.labelled[tier] += 1
                self.acceptable[tier] += share
                self.sources.setdefault(tier, Counter()).update(sources)

    def __str__(self) -> str:
        return "\n".join(self._line(tier) for tier in self.tiers)

    def _line(self, tier: str) -> str:
        if not self.labelled[tier]:
            return f"  {tier}: no labelled prompts"
        share = self.acceptable[tier] / self.labelled[tier]
        sources = ", ".join(f"{source} {count:,}" for source, count in self.sources[tier].most_common())
        return f"  {tier}: {self.labelled[tier]:,} labelled prompts, {share:.1%} acceptable ({sources})"
