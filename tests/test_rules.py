"""The operator's rules over the policy's scores: order, eligibility, propensities, the cap, sessions."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.attribution import NOBODY, Attribution, Pin
from serving.routing.rules import Choice, Rules, propensities
from serving.routing.sessions import Sessions

NAMES = ("low", "middle", "top")
BEST_TOP = (0.5, 0.6, 0.7)
BEST_LOW = (0.7, 0.6, 0.5)
ALL = (True, True, True)
SESSION = Attribution(team="search", session_id="s-1")


def choose(
    rules: Rules,
    scores: tuple[float, ...] = BEST_TOP,
    eligible: tuple[bool, ...] = ALL,
    who: Attribution = NOBODY,
    surcharge: float = 0.0,
) -> Choice:
    return rules.choose(NAMES, scores, eligible, who, surcharge=surcharge)


def sticky(folder: Path, **options: object) -> Rules:
    sessions = Sessions(folder / "sessions.db", ttl_s=3600, most=1000)
    return Rules(sessions=sessions, **options)  # type: ignore[arg-type]


def drained(**options: object) -> Rules:
    """Rules whose cap is reached: the one call of the burst had to go to the top."""
    rules = Rules(max_top_share=0.01, top_burst=1, **options)  # type: ignore[arg-type]
    choose(rules, eligible=(False, False, True))
    return rules


def test_without_rules_the_policy_has_what_it_wants() -> None:
    assert choose(Rules()) == Choice(2, 1.0, None)


def test_of_equal_scores_the_cheaper_is_taken() -> None:
    assert choose(Rules(), (0.5, 0.5, 0.5)).tier == 0


def test_a_policy_whose_choice_is_not_eligible_gets_the_best_that_is() -> None:
    assert choose(Rules(), BEST_TOP, (True, True, False)) == Choice(1, 1.0, "eligibility")


def test_the_first_pin_that_matches_wins() -> None:
    rules = Rules(pins=[Pin(team="search", task="faq", tier="top"), Pin(team="search", tier="low")])
    assert choose(rules, who=Attribution(team="search")) == Choice(0, 1.0, "pinned")
    assert choose(rules, BEST_LOW, who=Attribution(team="search", task="faq")) == Choice(2, 1.0, "pinned")
    assert choose(rules, who=Attribution(team="sales")).rule is None


def test_a_pinned_tier_that_cannot_take_the_request_is_not_used() -> None:
    rules = Rules(pins=[Pin(team="search", tier="low")])
    assert choose(rules, BEST_TOP, (False, True, True), Attribution(team="search")) == Choice(2, 1.0, None)


def test_a_pin_to_a_tier_that_is_not_on_this_ladder_is_not_used() -> None:
    assert choose(Rules(pins=[Pin(team="search", tier="gold")]), who=Attribution(team="search")).rule is None


def test_a_session_keeps_its_tier_over_workers(tmp_path: Path) -> None:
    one, other = sticky(tmp_path), sticky(tmp_path)
    assert choose(one, BEST_LOW, who=SESSION) == Choice(0, 1.0, None)
    assert choose(other, BEST_TOP, who=SESSION) == Choice(0, 1.0, "sticky")
    assert choose(other, BEST_TOP, who=Attribution(session_id="s-2")) == Choice(2, 1.0, None)
    assert choose(other, BEST_TOP).rule is None


def test_a_session_keeps_the_propensity_of_its_first_decision(tmp_path: Path) -> None:
    first = choose(sticky(tmp_path, exploration=0.5, generator=random.Random(1)), who=SESSION)
    assert first.propensity in (pytest.approx(0.5 / 3), pytest.approx(0.5 / 3 + 0.5))
    for _ in range(20):
        again = choose(sticky(tmp_path, exploration=0.5), who=SESSION)
        assert (again.tier, again.propensity, again.rule) == (first.tier, first.propensity, "sticky")


def test_a_session_whose_tier_cannot_take_a_request_gets_another_and_keeps_that(tmp_path: Path) -> None:
    rules = sticky(tmp_path)
    choose(rules, BEST_LOW, who=SESSION)
    assert choose(rules, BEST_LOW, (False, True, True), SESSION) == Choice(1, 1.0, "eligibility")
    assert choose(rules, BEST_LOW, who=SESSION) == Choice(1, 1.0, "sticky")


def test_a_pin_stands_above_a_session_and_leaves_no_trace_in_it(tmp_path: Path) -> None:
    rules = sticky(tmp_path, pins=[Pin(task="faq", tier="middle")])
    pinned = Attribution(team="search", task="faq", session_id="s-1")
    assert choose(rules, BEST_LOW, who=pinned).rule == "pinned"
    assert choose(rules, BEST_LOW, who=SESSION) == Choice(0, 1.0, None)
    assert choose(rules, BEST_TOP, who=pinned) == Choice(1, 1.0, "pinned")
    assert choose(rules, BEST_TOP, who=SESSION) == Choice(0, 1.0, "sticky")


def test_when_the_cap_is_reached_the_best_below_is_taken() -> None:
    assert choose(drained()) == Choice(1, 1.0, "capped")
    assert choose(drained(), BEST_LOW) == Choice(0, 1.0, None)


def test_a_reached_cap_stops_neither_pins_nor_what_only_the_top_can_take() -> None:
    rules = drained(pins=[Pin(team="search", tier="top")])
    assert choose(rules, who=Attribution(team="search")) == Choice(2, 1.0, "pinned")
    assert choose(rules, BEST_LOW, (False, False, True)) == Choice(2, 1.0, "eligibility")


def test_pinned_calls_use_up_the_cap_of_others() -> None:
    rules = Rules(max_top_share=0.01, top_burst=1, pins=[Pin(team="search", tier="top")])
    choose(rules, who=Attribution(team="search"))
    assert choose(rules).rule == "capped"


def test_a_reached_cap_moves_a_session_down_for_good(tmp_path: Path) -> None:
    rules = sticky(tmp_path, max_top_share=0.5, top_burst=1)
    assert choose(rules, who=SESSION).tier == 2
    assert choose(rules, who=SESSION) == Choice(1, 1.0, "capped")
    choose(rules, BEST_LOW)  # fills the bucket again
    assert choose(rules, who=SESSION) == Choice(1, 1.0, "sticky")


def test_a_surcharge_keeps_the_top_for_those_who_gain_most_by_it() -> None:
    rules = Rules(max_top_share=0.5)
    assert choose(rules, (0.2, 0.6, 0.7), surcharge=0.15) == Choice(1, 1.0, "capped")
    assert choose(rules, (0.2, 0.4, 0.7), surcharge=0.15) == Choice(2, 1.0, None)


def test_exploration_never_draws_the_top_while_its_cap_is_reached() -> None:
    rules = drained(exploration=0.9)
    assert {choose(rules).tier for _ in range(50)} == {0, 1}  # 50 × .01 fills half a call


def test_exploration_leaves_room_for_its_own_calls_to_the_top_within_the_cap() -> None:
    assert Rules().greedy_top_share(3) is None
    assert Rules(max_top_share=0.1).greedy_top_share(3) == pytest.approx(0.1)
    share = Rules(max_top_share=0.1, exploration=0.06).greedy_top_share(3)
    assert share == pytest.approx(0.08 / 0.94)  # .94 of them at this share, and .02 drawn: .1
    assert Rules(max_top_share=0.01, exploration=0.06).greedy_top_share(3) == 0
    assert Rules(max_top_share=1.0, exploration=0.9).greedy_top_share(3) == 1


def test_propensities_are_those_of_a_share_drawn_evenly() -> None:
    chances = propensities(1, [True, True, False, True], 0.3)
    assert chances == pytest.approx([0.1, 0.1 + 0.7, 0.0, 0.1])


masks = st.lists(st.booleans(), min_size=2, max_size=6).filter(any)


@given(allowed=masks, exploration=st.floats(0, 1, exclude_max=True), data=st.data())
def test_propensities_sum_to_one_and_are_none_where_nothing_is_allowed(
    allowed: list[bool], exploration: float, data: st.DataObject
) -> None:
    greedy = data.draw(st.sampled_from([i for i, able in enumerate(allowed) if able]))
    chances = propensities(greedy, allowed, exploration)
    assert sum(chances) == pytest.approx(1, abs=1e-12)
    assert all(chance >= 0 for chance in chances)
    assert all(able or chance == 0 for able, chance in zip(allowed, chances, strict=True))


def test_tiers_come_as_often_as_their_propensities_say() -> None:
    rules, n = Rules(exploration=0.3, generator=random.Random(7)), 20_000
    choices = [choose(rules, BEST_LOW) for _ in range(n)]
    expected = {0: 0.8, 1: 0.1, 2: 0.1}
    assert {choice.tier: choice.propensity for choice in choices} == pytest.approx(expected)
    assert {choice.tier: choice.rule for choice in choices} == {0: None, 1: "exploration", 2: "exploration"}
    seen = Counter(choice.tier for choice in choices)
    for tier, chance in expected.items():  # within four standard errors
        assert seen[tier] / n == pytest.approx(chance, abs=4 * (chance * (1 - chance) / n) ** 0.5)


requests = st.tuples(
    st.lists(st.floats(-10, 10), min_size=3, max_size=3),
    st.lists(st.booleans(), min_size=3, max_size=3).filter(any),
    st.builds(
        Attribution,
        team=st.sampled_from([None, "search", "sales"]),
        task=st.sampled_from([None, "faq"]),
        session_id=st.sampled_from([None, "1", "2"]),
    ),
)
pins = st.lists(
    st.builds(Pin, team=st.sampled_from(["search", "sales"]), tier=st.sampled_from([*NAMES, "gold"])), max_size=2
)


@settings(deadline=None)  # it makes files
@given(
    asked=st.lists(requests, min_size=1, max_size=40),
    pinned=pins,
    share=st.none() | st.floats(0, 1),
    burst=st.integers(1, 3),
    exploration=st.floats(0, 1, exclude_max=True),
    with_sessions=st.booleans(),
    seed=st.integers(0, 100),
)
def test_whatever_the_rules_no_ineligible_tier_is_chosen_and_the_cap_holds(
    tmp_path_factory: pytest.TempPathFactory,
    asked: list[tuple[list[float], list[bool], Attribution]],
    pinned: list[Pin],
    share: float | None,
    burst: int,
    exploration: float,
    with_sessions: bool,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("sessions")
    rules = Rules(
        pins=pinned,
        sessions=Sessions(folder / "sessions.db", ttl_s=60, most=1000) if with_sessions else None,
        max_top_share=share,
        top_burst=burst,
        exploration=exploration,
        generator=random.Random(seed),
    )
    by_choice = 0
    for n, (scores, eligible, who) in enumerate(asked, 1):
        choice = rules.choose(NAMES, scores, eligible, who)
        assert eligible[choice.tier]
        assert 0 < choice.propensity <= 1
        by_choice += choice.tier == 2 and choice.rule != "pinned" and any(eligible[:2])
        if share is not None:
            assert by_choice <= share * n + burst + 1e-9
