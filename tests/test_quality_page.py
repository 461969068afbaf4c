"""What the page on quality is made of."""

from dataclasses import replace

import numpy as np
import pytest

from tests.factories import made_up_examples
from tests.quality.cold_start import _apgr
from tests.quality.judging import judged_on
from tests.quality.money import _expected, _single
from tests.quality.recipes import BLEND, View, gains
from tests.quality.section import Bar, Section, bars_markdown, estimate, mean_of, number
from tests.quality.tables import PAIRS, held_out, named
from training.evaluation.intervals import Estimate


def test_numbers_are_written_without_a_leading_zero_and_a_dash_stands_for_none() -> None:
    assert [number(0.6549), number(-0.02, 2), number(1.25), number(None)] == [".655", "-.02", "1.250", "–"]
    assert estimate(Estimate(0.6, (0.5, 0.71))) == ".600 (.500 to .710)"
    assert estimate(Estimate(0.6, None)) == ".600"


def test_a_section_is_a_title_a_paragraph_a_table_and_its_pictures() -> None:
    section = Section("T", "One\n  two.", ["a", "b"], [["1", "2"]], figures={"f": None})  # type: ignore[dict-item]
    assert (
        section.markdown("images") == "## T\n\nOne two.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n![T](images/f.png)\n"
    )
    assert "| x | 1 | 2 | **no** |" in bars_markdown([Bar("x", "1", "2", met=False)])


def test_the_mean_of_estimates_is_of_their_values_and_of_their_ends() -> None:
    found = mean_of([Estimate(0.2, (0.1, 0.3)), Estimate(0.4, (0.2, 0.8))])
    assert found.value == pytest.approx(0.3)
    assert found.interval == pytest.approx((0.15, 0.55))


def test_apgr_worked_by_hand() -> None:
    # Gains 1, 0, 0, 1 in the order of the scores: the curve is 0, 1, 1, 1, 2 quarters above the weak tier.
    acceptable = np.array([[0, 1], [1, 1], [0, 0], [0, 1]], np.float32)
    proba = np.array([[0.1, 0.9], [0.1, 0.8], [0.1, 0.7], [0.1, 0.6]])
    assert _apgr(proba, acceptable) == pytest.approx((0.125 + 0.25 + 0.25 + 0.375) / 4 / 0.5)


def test_the_cheapest_single_tier_that_is_good_enough() -> None:
    examples = replace(made_up_examples(100), acceptable=np.tile([[0.0, 1.0, 1.0]], (100, 1)).astype(np.float32))
    costs = np.tile([[1.0, 2.0, 10.0]], (100, 1))
    judged = judged_on(examples.acceptable, replace(examples, cost_usd=costs), np.arange(100), costs)
    assert _single(judged, 0.95) == pytest.approx(0.2)


def test_expected_costs_have_the_means_that_were_paid_and_follow_the_expected_length() -> None:
    cost = np.array([[1.0, 4.0], [3.0, 8.0]])
    found = _expected(cost, output_tokens=np.array([[100.0, 100.0], [300.0, 300.0]]), input_tokens=np.zeros(2))
    np.testing.assert_allclose(found.mean(axis=0), [2, 6])
    np.testing.assert_allclose(found[1] / found[0], 3)


def test_a_test_part_is_the_sources_own_or_whole_groups() -> None:
    examples = replace(made_up_examples(200), held_out=np.arange(200) < 20)
    groups = np.arange(200) // 4
    assert held_out(named("RouterBench"), examples, groups, seed=0).sum() == 20
    drawn = held_out(named("GSM8K"), examples, groups, seed=0).reshape(50, 4)
    assert (drawn.all(axis=1) | ~drawn.any(axis=1)).all()
    assert 0.15 < drawn.mean() < 0.45


def test_every_table_has_a_name_of_its_own() -> None:
    assert len({table.name for table in PAIRS}) == len(PAIRS)


def test_each_recipe_finds_a_gain_that_is_plain_to_see() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(400) < 0.5
    view = View(
        embedding=np.where(hard[:, None], [1.0, 0, 0], [0, 1.0, 0]).astype(np.float32)
        + rng.normal(0, 0.1, (400, 3)).astype(np.float32),
        features=hard[:, None].astype(np.float32) + rng.normal(0, 0.1, (400, 2)).astype(np.float32),
        text=np.where(hard, "prove this theorem", "say hello"),
    )
    train, new = (View(view.embedding[r], view.features[r], view.text[r]) for r in (slice(300), slice(300, None)))
    for name, found in gains(train, hard[:300].astype(float), new).items():
        apart = found[hard[300:]].mean() - found[~hard[300:]].mean()
        assert apart > 0.4 * (found.max() - found.min()), name
    assert BLEND in gains(train, hard[:300].astype(float), new)
