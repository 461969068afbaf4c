"""How logs become examples: labels and features first, then the embeddings that are not kept yet."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from serving.classifier.features import estimated_input_tokens, text_features
from serving.classifier.text_key import text_key
from serving.errors import InputError, LabelError
from training.fitting.embeddings import EmbeddingStore
from training.fitting.examples import Examples
from training.fitting.labelled import LabelledPrompt, examples_of
from training.fitting.rule_words import rule_words
from training.labelling.outcomes import Labeller
from training.labelling.summary import LabelSummary
from training.logs.ladder import Ladder
from training.logs.readers import read_log
from training.logs.record import LoggedRequest
from training.progress import progress


def read_examples(
    paths: Sequence[Path], ladder: Ladder, labeller: Labeller, store: EmbeddingStore, *, split: str | None = None
) -> tuple[Examples, LabelSummary]:
    """The labelled requests of logs that were read once before, which reported their rejects.

    split: only requests of that split of an outcome table.
    Raises LabelError when no request carries an outcome of a tier on the ladder, InputError when none is of the split.
    """
    summary = LabelSummary(ladder.names)
    rows = []
    splits: set[str | None] = set()
    for request in read_log(paths, ladder=ladder):
        labels = labeller(request.outcomes)
        splits.add(request.split)
        if np.isnan(labels.acceptable).all() or split not in (None, request.split):
            continue
        summary.add(labels)
        conversation = request.conversation
        rows.append(
            LabelledPrompt(
                request.id,
                text_key(conversation.last_user_text),
                text_features(conversation),
                estimated_input_tokens(conversation),
                request.split == "test",
                rule_words(conversation.last_user_text),
                _slices(request),
                labels,
            )
        )
    if split is not None and split not in splits:
        known = ", ".join(sorted(name for name in splits if name)) or "none"
        raise InputError(f"no request is of the split {split!r}; there are: {known}", where="--split")
    if not rows:
        raise LabelError("no request carries an outcome of a tier on the ladder: add acceptable, score or feedback")
    with progress("embedding", len(rows)) as advance:
        for done in store.add(_labelled_texts(paths, ladder, labeller, split)):
            advance(done)
    return examples_of(rows, store.read([row.key for row in rows])), summary


def _labelled_texts(paths: Sequence[Path], ladder: Ladder, labeller: Labeller, split: str | None) -> Iterator[str]:
    """Read again rather than held: a log is larger than memory before its embeddings are."""
    for request in read_log(paths, ladder=ladder):
        if split in (None, request.split) and not np.isnan(labeller(request.outcomes).acceptable).all():
            yield request.conversation.last_user_text


def _slices(request: LoggedRequest) -> tuple[str | None, ...]:
    metadata = request.metadata
    return request.table, metadata.task, metadata.team, metadata.feature
