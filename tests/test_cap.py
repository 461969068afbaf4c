"""The bucket that holds the top tier to its share."""

from hypothesis import given
from hypothesis import strategies as st

from serving.routing.cap import SharedCap, TopCap


def taken(cap: TopCap, decisions: int) -> int:
    """How many of so many decisions go to the top when each would."""
    tops = 0
    for _ in range(decisions):
        top = cap.open
        cap.count(top=top)
        tops += top
    return tops


def test_when_all_would_go_up_the_burst_does_and_then_the_share() -> None:
    assert taken(TopCap(0.25, 4), 5) == 5  # 4, and the 4 × .25 that came meanwhile
    assert taken(TopCap(0.25, 4), 100) == 28  # 4, and 99 × .25, of which .75 is left


def test_a_share_of_none_has_no_burst_and_a_share_of_all_no_end() -> None:
    assert taken(TopCap(0.0, 4), 100) == 0
    assert taken(TopCap(1.0, 1), 100) == 100


def test_calls_that_had_to_go_up_are_paid_back_to_the_burst_and_no_further() -> None:
    cap = TopCap(0.5, 2)
    for _ in range(100):
        cap.count(top=True)
    waited = 0
    while not cap.open:
        cap.count(top=False)
        waited += 1
    assert waited == 5  # from -2 to the half below 1


@given(
    share=st.floats(0, 1),
    burst=st.integers(1, 5),
    wishes=st.lists(st.sampled_from(["top", "below", "forced"]), max_size=200),
)
def test_no_run_has_more_by_choice_than_its_share_and_the_burst(share: float, burst: int, wishes: list[str]) -> None:
    cap = TopCap(share, burst)
    by_choice = []
    for wish in wishes:
        chosen = wish == "top" and cap.open
        cap.count(top=chosen or wish == "forced")
        by_choice.append(chosen)
    for start in range(0, len(wishes), 7):
        for end in range(start + 1, len(wishes) + 1):
            assert sum(by_choice[start:end]) <= share * (end - start) + burst + 1e-9


def top_calls(cap: SharedCap, wants: dict[str, list[bool]], rounds: int) -> dict[str, int]:
    """How many calls of each team go to the top. The teams call in turn; `wants`, repeated: whether a call would."""
    tops = dict.fromkeys(wants, 0)
    for i in range(rounds):
        for team, pattern in wants.items():
            top = pattern[i % len(pattern)] and cap.open(team)
            cap.count(team, top=top)
            tops[team] += top
    return tops


GREEDY, MODEST = [True], [False, False, False, False, True]


def test_a_team_that_always_asks_leaves_the_others_what_they_need() -> None:
    """1,000 calls of each: .25 × 2,000 and the burst are for both. The modest one wants 200, less than .25 of its own,
    and misses but what it asks before its own bucket has filled; the greedy one has the rest."""
    tops = top_calls(SharedCap(0.25, 4), {"greedy": GREEDY, "modest": MODEST}, 1000)
    assert 195 <= tops["modest"] <= 200
    assert 290 <= tops["greedy"] <= 504 - tops["modest"]


def test_what_the_others_do_not_need_goes_to_whoever_asks() -> None:
    tops = top_calls(SharedCap(0.25, 4), {"greedy": GREEDY, "idle": [False]}, 1000)
    assert (480 <= tops["greedy"] <= 504, tops["idle"]) == (True, 0)


def test_one_team_alone_has_the_whole_bucket() -> None:
    """As of a `TopCap`: 4, and 99 × .25."""
    assert top_calls(SharedCap(0.25, 4), {"only": GREEDY}, 100) == {"only": 28}


def test_an_invented_name_brings_no_calls_to_the_top() -> None:
    """A new name for each call is a team with nothing of its own, while the modest one has its fifth."""
    cap, tops = SharedCap(0.25, 4), {"invented": 0, "modest": 0}
    for i in range(1000):
        for kind, team, wants in (("invented", f"team {i}", True), ("modest", "modest", i % 5 == 4)):
            top = wants and cap.open(team)
            cap.count(team, top=top)
            tops[kind] += top
    assert 195 <= tops["modest"] <= 200
    assert sum(tops.values()) <= 504


@given(st.lists(st.tuples(st.sampled_from([None, "one", "two"]), st.booleans()), max_size=300), st.floats(0, 1))
def test_whoever_calls_all_of_them_stay_within_the_share_and_the_burst(
    calls: list[tuple[str | None, bool]], share: float
) -> None:
    cap, tops = SharedCap(share, 3), 0
    for team, wants in calls:
        top = wants and cap.open(team)
        cap.count(team, top=top)
        tops += top
    assert tops <= share * len(calls) + 3 + 1e-6
