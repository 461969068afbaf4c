"""Slices where the promise breaks, and the pins for them."""

import tomllib

from serving.attribution import Pin
from training.evaluation.broken_slices import broken_slices, broken_text
from training.evaluation.evaluation import Evaluation, Slice
from training.evaluation.intervals import Estimate


def part(kind: str, name: str, value: float, low: float, high: float) -> Slice:
    return Slice(kind, name, 80, {"retained_quality": Estimate(value, (low, high)), "apgr": Estimate(None, None)})


def evaluation(*slices: Slice) -> Evaluation:
    return Evaluation(
        n=1000, n_labelled=1000, groups=1000, tiers={}, alone={}, ranking={}, cost={}, targets={}, curve=None,
        slices=slices, missing={}, costs="unknown",
    )  # fmt: skip


def test_a_slice_is_broken_when_its_whole_interval_is_below_the_target_the_worst_first() -> None:
    found = broken_slices(
        evaluation(
            part("task", "easy", 0.99, 0.97, 1.0),
            part("task", "unsure", 0.93, 0.90, 0.96),
            part("task", "hard", 0.90, 0.86, 0.94),
            part("team", "search", 0.80, 0.70, 0.90),
            Slice("team", "small", 50, {"retained_quality": Estimate(0.5, None), "apgr": Estimate(None, None)}),
        ),
        0.95,
    )
    assert [slice_.name for slice_ in found] == ["search", "hard"]


def test_the_pins_it_shows_are_settings_that_can_be_read() -> None:
    broken = [part("task", 'odd "name"', 0.8, 0.7, 0.9), part("language", "German", 0.9, 0.8, 0.94)]
    lines = list(broken_text(broken, 0.95, "premium"))
    assert 'task odd "name": retains 0.800 (0.700 to 0.900) of 80' in lines[1]
    assert "language German" in lines[2]  # which no pin can name
    settings = tomllib.loads("\n".join(lines[4:]))
    assert [Pin.model_validate(pin) for pin in settings["pins"]] == [Pin(task='odd "name"', tier="premium")]


def test_nothing_is_said_where_nothing_is_broken() -> None:
    assert list(broken_text([], 0.95, "premium")) == []
