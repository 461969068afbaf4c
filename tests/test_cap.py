"""The bucket that holds the top tier to its share."""

from hypothesis import given
from hypothesis import strategies as st

from serving.routing.cap import TopCap


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
