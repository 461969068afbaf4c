"""The measure of rerouting attacks on cases that can be worked by hand."""

import numpy as np
import pytest

from serving.classifier.bundle import Bundle
from serving.classifier.classifier import Classifier
from serving.classifier.encoder import EmbeddingMemo
from serving.routing.policy import Policy
from serving.routing.router import Router
from serving.routing.rules import Rules
from tests.factories import FakeEncoder
from tests.quality.rerouting import (
    Attack,
    Routed,
    by_keywords,
    by_length,
    by_router,
    effect,
    expected_costs,
    gadget,
    measure,
    own_gadgets,
    paid_by_team,
    universal,
)
from training.evaluation.intervals import Resamples

VALUE = Policy("value", 0.05)  # worth a hard prompt at the top tier, not an easy one
EASY = [f"Question {i}: prove it carefully, " for i in range(10)]
HARD = [f"Question {i}: " + "prove it carefully, " * 20 for i in range(10)]


def router(bundle: Bundle) -> Router:
    return Router(Classifier(bundle, EmbeddingMemo(FakeEncoder(), 100)), "7")


def counts_dear(prompts: list[str]) -> Routed:
    """A router that believes in the word "dear", a tenth for each."""
    gain = np.array([text.split().count("dear") / 10 for text in prompts])
    return Routed((gain > 0).astype(np.intp), gain)


def test_an_attack_is_what_stands_before_and_after_a_prompt() -> None:
    assert Attack("both", prefix="a ", suffix=" c")("b") == "a b c"


def test_the_effect_counts_who_went_up_and_down_and_what_that_costs() -> None:
    """Of 20 prompts at 1 and 10, half at each tier: 5 go up, 2 down. They cost 110 before, 110 + 45 - 18 after."""
    before = Routed(np.repeat([0, 1], 10), np.full(20, 0.2))
    tier = before.tier.copy()
    tier[:5], tier[10:12] = 1, 0
    after = Routed(tier, np.full(20, 0.5))
    found = effect("made up", before, after, np.tile([1.0, 10.0], (20, 1)), Resamples.of(np.arange(20)))
    figures = (found.up, found.down, found.top, found.gain, found.cost)
    assert [figure.value for figure in figures] == pytest.approx([0.25, 0.1, 0.65, 0.3, 27 / 110])
    assert all(figure.interval is not None for figure in figures)
    assert found.gain.interval == pytest.approx((0.3, 0.3))


def test_no_attack_has_no_effect() -> None:
    costs = np.tile([1.0, 10.0], (10, 1))
    (found,) = measure(counts_dear, ["dear me", "me"] * 5, [Attack("none")], costs)
    assert [figure.value for figure in (found.up, found.down, found.top, found.cost)] == [0.0, 0.0, 0.5, 0.0]


def test_a_search_finds_the_words_that_pay_with_as_many_queries_as_it_may_ask() -> None:
    asked: list[str] = []

    def score(text: str) -> float:
        asked.append(text)
        return text.split().count("dear")

    assert gadget(score, ["dear", "cheap"], words=3, queries=100, seed=0) == "dear dear dear"
    assert len(asked) == 100
    assert gadget(score, ["dear", "cheap"], words=3, queries=1, seed=0) == asked[0]


def test_a_gadget_for_all_prompts_pushes_where_it_was_told_to() -> None:
    words = ["dear", "cheap"]
    up = universal(counts_dear, ["one", "two"], words, up=True, before=True, queries=200, seed=1)
    down = universal(counts_dear, ["one", "two"], words, up=False, before=False, queries=200, seed=1)
    assert (up.name, up("ask")) == ("gadget up, before", "dear " * 9 + "dear\nask")
    assert (down.name, down("ask")) == ("gadget down, after", "ask\n" + "cheap " * 9 + "cheap")


def test_a_gadget_of_its_own_is_searched_for_each_prompt() -> None:
    found = own_gadgets(counts_dear, ["one", "two"], ["dear", "cheap"], up=True, queries=200, seed=1)
    assert found == ["one\n" + " ".join(["dear"] * 10), "two\n" + " ".join(["dear"] * 10)]


def test_the_rules_know_the_cheapest_tier_and_the_top() -> None:
    prompts = ["short", "compare the pros and cons", "x" * 501]
    assert by_length(10, 3)(prompts).tier.tolist() == [0, 2, 2]
    assert by_keywords(3)(prompts).tier.tolist() == [0, 2, 2]


def test_a_router_is_attacked_through_its_decisions(bundle: Bundle) -> None:
    """The made-up bundle takes length for difficulty, so that padding sends everything up."""
    padded = Attack("padding", suffix="prove it carefully, " * 19)
    subject = router(bundle)
    (found,) = measure(by_router(subject, VALUE), EASY, [padded], expected_costs(subject, EASY, VALUE))
    assert (found.up.value, found.down.value, found.top.value) == (1.0, 0.0, 1.0)
    assert found.gain.value is not None
    assert found.gain.value > 0.3
    assert found.cost.value is not None
    assert found.cost.value > 10


def test_a_cap_bounds_what_an_attacker_takes_and_the_others_wait_for_it(bundle: Bundle) -> None:
    """All ask what goes to the top: of 400 calls at most .3 × 400 + 20 do, whoever made them."""
    subject = router(bundle)
    costs = expected_costs(subject, EASY, VALUE)
    texts = {"attacker": HARD, "others": HARD}
    share = {"attacker": 0.5, "others": 0.5}
    free, capped = (
        paid_by_team(subject, VALUE, rules, texts, costs, share=share, calls=400, seed=0)
        for rules in (Rules(), Rules(max_top_share=0.3))
    )
    assert sum(team.calls for team in capped.values()) == 400
    assert sum(team.top for team in capped.values()) <= 140 < sum(team.top for team in free.values())
    assert capped["others"].top < free["others"].top
    assert sum(team.cost for team in capped.values()) < sum(team.cost for team in free.values())
