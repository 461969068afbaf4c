"""What a bundle remembers of its training prompts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.classifier.bundle import Bundle, read_bundle, write_bundle
from serving.classifier.quantised import quantised
from serving.classifier.text_key import text_key
from serving.classifier.trained_on import TrainedOn, seen_keys
from serving.errors import BundleError
from tests.factories import CONFIG, made_up_examples, trained_bundle
from training.fitting.examples import PARTS, prompt_groups, split_parts


def remembered(bundle: Bundle) -> TrainedOn:
    assert bundle.trained_on is not None
    return bundle.trained_on


def test_a_bundle_remembers_the_prompts_it_was_fitted_on_and_has_seen_all_but_the_test_part(bundle: Bundle) -> None:
    examples = made_up_examples()
    part = split_parts(examples, prompt_groups(examples, CONFIG.same_prompt_cosine), CONFIG.split)
    fit, test = part == PARTS.index("fit"), part == PARTS.index("test")
    assert set(remembered(bundle).ids) == set(examples.id[fit])
    assert remembered(bundle).has_seen(examples.key[~test]).all()
    assert not remembered(bundle).has_seen(examples.key[test]).any()


def test_the_nearest_prompt_to_a_remembered_one_is_itself(bundle: Bundle) -> None:
    rows, cosines = remembered(bundle).nearest(remembered(bundle).embedding[3], 2)
    assert rows[0] == 3
    assert cosines[0] == pytest.approx(1, abs=1e-5)
    assert cosines[1] < 1


def test_neighbours_are_ordered_by_cosine_not_by_length() -> None:
    # Cosines with (1, 0): .6 of (3, 4), 1 of (1, 0), 0 of (0, 2).
    codes, scale = quantised(np.array([[3, 4], [1, 0], [0, 2]], np.float32))
    blank = np.zeros((3, 1), np.float32)
    some = TrainedOn(("a", "b", "c"), codes, scale, blank, blank, np.empty(0, np.uint64))
    rows, cosines = some.nearest(np.array([1, 0], np.float32), 3)
    assert [some.ids[row] for row in rows] == ["b", "a", "c"]
    np.testing.assert_allclose(cosines, [1, 0.6, 0], atol=0.01)


def test_of_too_many_prompts_the_same_few_are_remembered(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"remembered_prompts": 50})
    first, again = (remembered(trained_bundle(tmp_path / name, config=config)) for name in ("a", "b"))
    assert len(first) == 50
    assert first.ids == again.ids
    assert len(first.seen) > 1000  # repeats are spotted all the same


def test_a_bundle_can_be_told_to_remember_nothing(tmp_path: Path) -> None:
    bundle = trained_bundle(tmp_path / "a", config=CONFIG.model_copy(update={"remembered_prompts": 0}))
    assert bundle.trained_on is None
    assert not (tmp_path / "a" / "trained_on.npz").exists()


def test_a_memory_that_does_not_fit_the_router_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    short = replace(remembered(bundle), scale=remembered(bundle).scale[:-1])
    with pytest.raises(BundleError, match=r"trained_on\.npz: scale does not fit 9"):
        write_bundle(tmp_path / "a", replace(bundle, trained_on=short))


def test_a_damaged_memory_is_refused(tmp_path: Path) -> None:
    trained_bundle(tmp_path / "a")
    with (tmp_path / "a" / "trained_on.npz").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    with pytest.raises(BundleError, match="changed or damaged"):
        read_bundle(tmp_path / "a")


def test_a_key_is_seen_by_its_text_alone() -> None:
    keys = np.array([text_key("one"), text_key("two"), text_key("one")], "S64")
    assert len(seen_keys(keys)) == 2
