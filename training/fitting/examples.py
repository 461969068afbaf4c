"""What a router is fitted on: prompts as arrays, in the three parts of a split."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from training.config import Split
from training.labelling.outcomes import Labels

PARTS: Final = ("fit", "threshold", "test")
_BLOCK: Final = 1024  # rows of the similarity matrix held at a time


@dataclass(frozen=True)
class Examples:
    """n prompts, k tiers, cheapest first.

    id: text (n,), of the request. key: bytes (n,), sha256 of the embedded text in hex. embedding: float32 (n, d).
    features: float32 (n, f). acceptable, trust, weight, output_tokens: float32 (n, k), as in
    `training.labelling.outcomes`. input_tokens: float32 (n,). cost_usd: float64 (n, k), as recorded, NaN where
    unknown. expected: float32 (n, k), an estimate of acceptable from more than the tier's own answers, which the heads
    are fitted to where it is not NaN. held_out: bool (n,), rows that the source itself reserves for tests. rule_words:
    float32 (n,), how many of the words that the field's rules look for, NaN where the text is not at hand. slices:
    name → text (n,), None where it has none.
    """

    id: NDArray[np.object_]
    key: NDArray[np.bytes_]
    embedding: NDArray[np.float32]
    features: NDArray[np.float32]
    acceptable: NDArray[np.float32]
    trust: NDArray[np.float32]
    weight: NDArray[np.float32]
    output_tokens: NDArray[np.float32]
    input_tokens: NDArray[np.float32]
    cost_usd: NDArray[np.float64]
    expected: NDArray[np.float32]
    held_out: NDArray[np.bool_]
    rule_words: NDArray[np.float32]
    slices: Mapping[str, NDArray[np.object_]]

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """The examples at `rows`, a mask or indices."""
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "slices"}
        return replace(self, **arrays, slices={name: values[rows] for name, values in self.slices.items()})

    def judged(self) -> NDArray[np.float32]:
        """`acceptable` where somebody judged it, (n, k): a complaint teaches, but is no evidence of how often."""
        return np.where(self.trust == 1, self.acceptable, np.nan).astype(np.float32)

    def label_weight(self) -> NDArray[np.float64]:
        """How much each label counts in fitting, (n, k): weight × trust, scaled to a mean of 1 over the labels of a
        tier, 0 where there is none."""
        weight = np.nan_to_num(self.weight, nan=1.0).astype(np.float64) * self.trust
        weight[np.isnan(self.acceptable)] = 0
        counts = np.maximum((weight > 0).sum(axis=0), 1)
        return np.asarray(weight / np.maximum(weight.sum(axis=0) / counts, 1e-12))

    def targets(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the heads are fitted to and how much it counts, both (n, k): an estimate where there is one, else the
        label. 0 counts where there is neither."""
        estimated = ~np.isnan(self.expected)
        target = np.where(estimated, self.expected, np.nan_to_num(self.acceptable)).astype(np.float64)
        return target, np.where(estimated, 1.0, self.label_weight())

    def digest(self) -> str:
        """sha256 over keys and labels: the same prompts with the same outcomes give the same digest, in any order."""
        columns = (self.acceptable, self.weight, self.trust)
        rows = [
            hashlib.sha256(key + b"".join(column[i].tobytes() for column in columns)).digest()
            for i, key in enumerate(self.key)
        ]
        return hashlib.sha256(b"".join(sorted(rows))).hexdigest()


def label_arrays(labels: Sequence[Labels]) -> dict[str, Any]:
    """The arrays of `Examples` that come from labels, by name; costs keep double precision."""
    single = ("acceptable", "trust", "weight", "output_tokens")
    arrays = {name: np.array([getattr(row, name) for row in labels], np.float32) for name in single}
    return {**arrays, "cost_usd": np.array([row.cost_usd for row in labels], np.float64)}


def prompt_groups(examples: Examples, cosine: float) -> NDArray[np.intp]:
    """Group number of each prompt: prompts joined by a chain of embeddings at least `cosine` alike share one."""
    _, first, member = np.unique(examples.key, return_index=True, return_inverse=True)
    E = examples.embedding[first]  # a text that is logged again and again is compared once
    group = np.arange(len(E))
    for start in range(0, len(E), _BLOCK):
        i, j = np.nonzero(E[start : start + _BLOCK] @ E[start:].T >= cosine)
        # Joined block by block, as edges between groups: a log of one template would have all pairs of its rows.
        edges = np.unique(np.stack([group[i + start], group[j + start]]), axis=1)
        graph = coo_array((np.ones(edges.shape[1], np.bool_), (edges[0], edges[1])), shape=(len(E), len(E)))
        group = connected_components(graph, directed=False)[1][group]
    return np.asarray(group[member], np.intp)


def split_parts(examples: Examples, groups: NDArray[np.intp], split: Split) -> NDArray[np.intp]:
    """Index into PARTS for each prompt; a group is never divided.

    The part follows from a hash of the group's smallest key, so a prompt stays in its part when a log grows, and
    two versions trained on overlapping logs are mostly judged on prompts that neither was fitted on: a prompt can
    move when its group gains one with a smaller key. Groups with a
    prompt that its source holds out are test.
    """
    order = np.argsort(examples.key, kind="stable")  # so that a group's first key does not depend on row order
    unique, first = np.unique(groups[order], return_index=True)
    position = [
        int.from_bytes(hashlib.sha256(b"split:" + key).digest()[:8]) / 2**64 for key in examples.key[order][first]
    ]
    ends = np.cumsum([getattr(split, name) for name in PARTS])[:-1]
    part_of_group = np.searchsorted(ends, position, side="right")
    member_of = np.searchsorted(unique, groups)
    part_of_group[member_of[examples.held_out]] = PARTS.index("test")
    return np.asarray(part_of_group[member_of], np.intp)
