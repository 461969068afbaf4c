"""Which slices of traffic is a router judged on apart: task, language, length, team, feature, source."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.features import FEATURE_NAMES
from training.evaluation.baselines.rules import prompt_length
from training.fitting.examples import Examples

MIN_PROMPTS: Final = 50  # an interval of fewer says next to nothing
_LENGTHS: Final = ((200, "up to 200 characters"), (1000, "201 to 1,000"), (4000, "1,001 to 4,000"))
_LANGUAGES: Final = {"en": "English", "de": "German", "fr": "French", "es": "Spanish"}


def slices_of(examples: Examples) -> Iterator[tuple[str, str, NDArray[np.intp]]]:
    """Kind, name and rows of every slice with at least MIN_PROMPTS prompts that is not all of them."""
    kinds = {"task": _named(examples, "task"), "language": _language(examples), "length": _length(examples)}
    kinds |= {kind: _named(examples, kind) for kind in ("team", "feature", "table")}
    for kind, names in kinds.items():
        found, member = np.unique([name or "" for name in names], return_inverse=True)
        for i, name in enumerate(found):
            rows = np.flatnonzero(member == i)
            if name and MIN_PROMPTS <= len(rows) < len(examples):
                yield kind, str(name), rows


def _named(examples: Examples, kind: str) -> NDArray[np.object_]:
    return examples.slices.get(kind, np.full(len(examples), None, object))


def _length(examples: Examples) -> NDArray[np.object_]:
    names = np.array([name for _, name in _LENGTHS] + ["over 4,000"], object)
    return np.asarray(names[np.searchsorted([end for end, _ in _LENGTHS], prompt_length(examples))], object)


def _language(examples: Examples) -> NDArray[np.object_]:
    """As the features tell it: by script, else by the commonest function words; None where there are none."""
    share = {name: examples.features[:, FEATURE_NAMES.index(f"stopwords_{name}")] for name in _LANGUAGES}
    counts = np.stack(list(share.values()), axis=1)
    names = np.array(list(_LANGUAGES.values()), object)[np.argmax(counts, axis=1)]
    names[counts.max(axis=1) == 0] = None
    for feature, script in (("share_cjk", "Chinese, Japanese or Korean"), ("share_other_script", "other script")):
        names[examples.features[:, FEATURE_NAMES.index(feature)] > 0.2] = script
    return np.asarray(names, object)
