"""Of many calls with faults each ends in one answer or one error, and the ledger agrees with the provider's counts."""

from collections import Counter
from pathlib import Path

from serving.classifier.bundle import Bundle
from serving.ledger.events import Event
from tests.faulty_load import LEFT, calls_with_faults
from tests.stand_in.server import StandIn


def test_each_of_many_calls_ends_in_one_way_and_the_ledger_agrees(tmp_path: Path, bundle: Bundle) -> None:
    check(*calls_with_faults(tmp_path, bundle, 400), calls=400)


def check(ends: Counter[str], provider: StandIn, booked: list[Event], *, calls: int) -> None:
    """What must hold of any number of them."""
    assert ends.total() == calls
    unanswered = ends["upstream_unavailable"]  # left out by a breaker: nothing went out
    assert sum(not event.wasted for event in booked) == calls - unanswered
    assert len(booked) == provider.attempts.total()
    assert Counter(event.model_asked for event in booked) == provider.attempts
    assert {event.status for event in booked} <= {"ok", "error", "cancelled"}
    cancelled = [event for event in booked if event.status == "cancelled"]
    assert {event.model_asked for event in cancelled} == {LEFT}
    assert len(cancelled) <= ends["left"]  # the answer of some had come to its end by then
    whole = [event for event in booked if event.status == "ok" and event.model_asked != LEFT]
    del provider.answered[LEFT], provider.prompt_tokens[LEFT], provider.completion_tokens[LEFT]
    assert len(whole) == provider.answered.total() == ends["answer"]
    usages = [event.usage for event in whole if event.usage is not None and not event.usage_estimated]
    assert len(usages) == len(whole)
    assert sum(usage.input_tokens or 0 for usage in usages) == provider.prompt_tokens.total()
    assert sum(usage.output_tokens or 0 for usage in usages) == provider.completion_tokens.total()
    assert all(event.cost is not None and event.cost.pico_usd > 0 for event in whole)
