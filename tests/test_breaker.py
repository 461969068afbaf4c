"""The breaker of a model: when it is left out, who may try it again, and what calls begun before say."""

import pytest

from serving.errors import UpstreamError
from serving.upstream.breaker import Breakers, Trial, is_outage


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breakers(clock: Clock) -> Breakers:
    """Three failures in a row, then 5 s, 10 s and 15 s at most."""
    return Breakers(3, 5.0, 15.0, clock)


def admitted(breakers: Breakers, model: str = "small") -> Trial:
    trial = breakers.admit(model)
    assert trial is not None
    return trial


def fail(breakers: Breakers, times: int) -> None:
    for _ in range(times):
        admitted(breakers).end("failed")


def test_a_model_is_left_out_after_so_many_failures_in_a_row_and_no_other_is(breakers: Breakers) -> None:
    fail(breakers, 2)
    assert breakers.out() == {}
    fail(breakers, 1)
    assert breakers.admit("small") is None
    assert breakers.admit("large") is not None
    assert breakers.out() == {"small": 5.0}


def test_an_answer_in_between_makes_the_count_begin_anew(breakers: Breakers) -> None:
    fail(breakers, 2)
    admitted(breakers).end("succeeded")
    fail(breakers, 2)
    assert breakers.out() == {}


def test_a_call_that_was_left_neither_counts_nor_makes_the_count_begin_anew(breakers: Breakers) -> None:
    fail(breakers, 2)
    for _ in range(5):
        admitted(breakers).end("left")
    assert breakers.out() == {}
    fail(breakers, 1)
    assert list(breakers.out()) == ["small"]


def test_one_call_at_a_time_tries_it_and_its_answer_takes_the_model_back(breakers: Breakers, clock: Clock) -> None:
    fail(breakers, 3)
    clock.now += 4.9
    assert breakers.admit("small") is None
    clock.now += 0.1
    trial = admitted(breakers)
    assert breakers.admit("small") is None
    assert breakers.out() == {"small": 0.0}
    trial.end("succeeded")
    assert breakers.out() == {}
    assert breakers.admit("small") is not None
    assert breakers.admit("small") is not None


def test_it_is_left_out_twice_as_long_after_each_try_that_fails_up_to_the_bound(
    breakers: Breakers, clock: Clock
) -> None:
    fail(breakers, 3)
    for wait_s in (5.0, 10.0, 15.0, 15.0):
        assert breakers.out() == {"small": wait_s}
        clock.now += wait_s
        fail(breakers, 1)
    clock.now += 15
    admitted(breakers).end("succeeded")
    fail(breakers, 3)
    assert breakers.out() == {"small": 5.0}


def test_a_try_that_was_left_gives_its_place_to_the_next(breakers: Breakers, clock: Clock) -> None:
    fail(breakers, 3)
    clock.now += 5
    admitted(breakers).end("left")
    assert breakers.out() == {"small": 0.0}
    admitted(breakers).end("succeeded")
    assert breakers.out() == {}


def test_of_a_call_only_what_is_told_first_counts(breakers: Breakers, clock: Clock) -> None:
    trial = admitted(breakers)
    for _ in range(3):
        trial.end("failed")
    assert breakers.out() == {}
    fail(breakers, 2)
    clock.now += 5
    tried = admitted(breakers)
    tried.end("succeeded")
    tried.end("left")
    assert breakers.out() == {}


def test_calls_begun_before_it_was_left_out_say_nothing_of_it_afterwards(breakers: Breakers, clock: Clock) -> None:
    before = [admitted(breakers) for _ in range(6)]
    fail(breakers, 3)
    before[0].end("succeeded")
    assert breakers.out() == {"small": 5.0}
    before[1].end("failed")
    assert breakers.out() == {"small": 5.0}
    clock.now += 5
    trial = admitted(breakers)
    before[2].end("left")
    assert breakers.admit("small") is None  # the place is still taken
    trial.end("succeeded")
    for late in before[3:]:
        late.end("failed")
    assert breakers.out() == {}


def test_the_first_of_several_models_to_be_tried_again_is_told(breakers: Breakers, clock: Clock) -> None:
    fail(breakers, 3)
    clock.now += 2
    for _ in range(3):
        admitted(breakers, "large").end("failed")
    assert breakers.first_back_s(["small", "large"]) == 3.0
    assert breakers.first_back_s(["large"]) == 5.0


def test_names_that_clients_make_up_do_not_fill_the_memory(breakers: Breakers) -> None:
    fail(breakers, 3)
    for i in range(5_000):
        admitted(breakers, f"made-up-{i}").end("failed")
        assert breakers.admit("small") is None  # a model in use is remembered
    assert len(breakers._of) == 1_000


@pytest.mark.parametrize(
    ("code", "status", "counts"),
    [
        ("unreachable", None, True), ("timeout", None, True), ("connection", None, True), ("malformed", None, True),
        ("status", 500, True), ("status", 503, True), ("status", 408, False), ("status", 409, False),
        ("rate_limited", 429, False), ("malformed", 413, False),
    ],
)  # fmt: skip
def test_what_is_an_outage_and_what_a_refusal(code: str, status: int | None, counts: bool) -> None:
    assert is_outage(UpstreamError(code, "", status=status)) == counts
