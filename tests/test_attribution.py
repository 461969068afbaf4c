"""Who asks, and whom a pin is for."""

import pytest
from pydantic import ValidationError

from serving.attribution import NOBODY, Attribution, Pin, pinned_elsewhere, read_attribution
from serving.errors import InputError


def test_our_keys_are_read_and_others_are_the_clients_own() -> None:
    metadata = {"team": "search", "feature": "ask", "task": "faq", "session_id": "s-1", "trace": [1]}
    assert read_attribution(metadata) == Attribution("search", "ask", "faq", "s-1")


@pytest.mark.parametrize("metadata", [None, {}, {"team": None, "session_id": ""}])
def test_what_is_not_said_is_nobody(metadata: object) -> None:
    assert read_attribution(metadata) == NOBODY


@pytest.mark.parametrize(
    ("metadata", "where"),
    [
        ([], "metadata"), ("search", "metadata"), ({"team": 7}, "metadata.team"), ({"feature": []}, "metadata.feature"),
        ({"task": True}, "metadata.task"), ({"session_id": 4711}, "metadata.session_id"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_refused_with_its_place_and_not_quoted(metadata: object, where: str) -> None:
    with pytest.raises(InputError) as caught:
        read_attribution(metadata)
    assert caught.value.where == where
    assert "4711" not in str(caught.value)


def test_a_pin_matches_when_all_it_names_does() -> None:
    pin = Pin(team="search", task="faq", tier="economy")
    assert pin.matches(Attribution(team="search", task="faq", feature="any"))
    assert not pin.matches(Attribution(team="search"))
    assert not pin.matches(Attribution(team="search", task="chat"))
    assert not pin.matches(NOBODY)


def test_a_pin_must_say_for_whom() -> None:
    with pytest.raises(ValidationError, match="name a team, a feature or a task"):
        Pin(tier="economy")


def test_a_pin_to_an_unknown_tier_is_told_with_those_there_are() -> None:
    pins = [Pin(team="a", tier="low"), Pin(team="b", tier="gold")]
    assert pinned_elsewhere(pins, ["low", "gold"]) is None
    assert pinned_elsewhere(pins, ["low", "high"]) == "there is no tier 'gold' to pin to; there are low, high"
