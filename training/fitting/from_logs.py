"""How logs become examples: labels and features first, then the embeddings that are not kept yet."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from serving.classifier.features import FEATURE_NAMES, estimated_input_tokens, text_features
from serving.errors import InputError, LabelError
from training.fitting.embeddings import EmbeddingStore, text_key
from training.fitting.examples import Examples, label_arrays
from training.fitting.rule_words import rule_words
from training.labelling.outcomes import Labeller
from training.labelling.summary import LabelSummary
from training.logs.ladder import Ladder
from training.logs.readers import read_log
from training.logs.record import LoggedRequest
from training.progress import progress

_SLICES = ("table", "task", "team", "feature")


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
            (
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
    ids, keys, features, input_tokens, held_out, words, slices, all_labels = zip(*rows, strict=True)
    with progress("embedding", len(rows)) as advance:
        for done in store.add(_labelled_texts(paths, ladder, labeller, split)):
            advance(done)
    examples = Examples(
        id=np.array(ids, object),
        key=np.array(keys, "S64"),
        embedding=store.read(keys),
        features=np.stack(features).reshape(len(rows), len(FEATURE_NAMES)),
        input_tokens=np.array(input_tokens, np.float32),
        expected=np.full((len(rows), len(ladder.names)), np.nan, np.float32),
        held_out=np.array(held_out),
        rule_words=np.array(words, np.float32),
        slices={
            name: np.array(values, object) for name, values in zip(_SLICES, zip(*slices, strict=True), strict=True)
        },
        **label_arrays(all_labels),
    )
    return examples, summary


def _labelled_texts(paths: Sequence[Path], ladder: Ladder, labeller: Labeller, split: str | None) -> Iterator[str]:
    """Read again rather than held: a log is larger than memory before its embeddings are."""
    for request in read_log(paths, ladder=ladder):
        if split in (None, request.split) and not np.isnan(labeller(request.outcomes).acceptable).all():
            yield request.conversation.last_user_text


def _slices(request: LoggedRequest) -> tuple[str | None, ...]:
    metadata = request.metadata
    return request.table, metadata.task, metadata.team, metadata.feature
