"""Which tiers can take a conversation, and what a client is told when none can."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.chat import Conversation, read_conversation
from serving.errors import InputError
from serving.routing.eligibility import eligible_tiers, token_bounds
from serving.tiers import Tier


def tier(name: str = "a", **capabilities: object) -> Tier:
    return Tier(name=name, models=("m",), **capabilities)  # type: ignore[arg-type]


def eligible(conversation: Conversation, *tiers: Tier) -> list[bool]:
    return list(eligible_tiers(tiers, conversation))


PLAIN = read_conversation(prompt="hello")
IMAGE = read_conversation(
    messages=[{"role": "user", "content": [{"type": "text", "text": "what is it?"}, {"type": "image_url"}]}]
)
TOOLS = read_conversation(prompt="hello", tools=[{"type": "function"}])
JSON = read_conversation(prompt="hello", response_format={"type": "json_object"})


@pytest.mark.parametrize(
    ("conversation", "capability"), [(IMAGE, "vision"), (TOOLS, "tools"), (JSON, "json_mode")], ids=str
)
def test_a_tier_known_to_lack_what_is_needed_is_not_eligible(conversation: Conversation, capability: str) -> None:
    lacking, having, unknown = tier(**{capability: False}), tier(**{capability: True}), tier()
    assert eligible(conversation, lacking, having, unknown) == [False, True, True]
    assert eligible(PLAIN, lacking, having, unknown) == [True, True, True]


def test_tokens_are_bounded_by_bytes_messages_images_and_the_answer() -> None:
    text = "é" * 100  # 200 bytes: 20 tokens at least, 100 at most
    message = {"role": "user", "content": [{"type": "text", "text": text}, {"type": "image_url"}]}
    conversation = read_conversation(messages=[message], max_tokens=500)
    assert token_bounds(conversation) == (20 + 500, 100 + 8 + 1600 + 500)


def test_tools_calls_and_a_schema_take_room_too() -> None:
    tools = [{"a": "b"}]  # [{"a":"b"}] is 11 bytes
    schema = {"type": "json_schema"}  # {"type":"json_schema"} is 22 bytes
    call = {"role": "assistant", "content": None, "tool_calls": ["é"]}  # {"tool_calls":["é"]} is 21 bytes
    conversation = read_conversation(
        messages=[{"role": "user", "content": "four"}, call], tools=tools, response_format=schema
    )
    assert conversation.total_bytes == 4 + 21 + 11 + 22


def test_room_is_needed_for_the_larger_of_both_limits_of_the_answer() -> None:
    assert read_conversation(prompt="x", max_tokens=3, max_completion_tokens=7).max_output_tokens == 7
    assert read_conversation(prompt="x").max_output_tokens is None


def test_a_window_that_is_surely_wide_enough_is_preferred() -> None:
    conversation = read_conversation(prompt="a" * 1000)  # 508 tokens at most, 100 at least
    assert eligible(conversation, tier(context_window=507), tier(context_window=508)) == [False, True]


def test_where_no_window_surely_is_the_widest_takes_it() -> None:
    conversation = read_conversation(prompt="a" * 1000)
    narrow, wide = tier(context_window=200), tier(context_window=300)
    assert eligible(conversation, narrow, wide) == [False, True]
    assert eligible(conversation, wide, narrow, wide) == [True, False, True]


def test_the_widest_window_must_be_that_of_a_tier_that_is_able() -> None:
    blind = tier(context_window=10_000, vision=False)
    assert eligible(IMAGE, blind, tier(context_window=1000)) == [False, True]


def test_a_refusal_says_what_is_needed_and_what_each_tier_lacks() -> None:
    conversation = read_conversation(prompt="a" * 100_000, tools=[{}], max_tokens=2000)
    with pytest.raises(InputError) as caught:
        eligible_tiers([tier("low", tools=False, context_window=4000), tier("high", context_window=8000)], conversation)
    assert caught.value.where == "request"
    assert str(caught.value) == (  # [{}] is 4 bytes more: 100,004 / 10 + 2,000
        "request: no tier can take it: it needs tools and at least 12,000 tokens of context; "
        "low lacks tools and room, with 4,000 tokens; high lacks room, with 8,000 tokens"
    )


def test_the_smallest_request_is_refused_too_when_no_tier_is_able() -> None:
    with pytest.raises(InputError, match="a lacks JSON mode"):
        eligible_tiers([tier(json_mode=False, context_window=100)], JSON)


@given(
    text=st.text(min_size=1, max_size=300).filter(str.strip),
    windows=st.lists(st.none() | st.integers(1, 400), min_size=1, max_size=4),
    answer=st.none() | st.integers(1, 10**9),
)
def test_a_tier_with_no_room_for_the_fewest_tokens_is_never_eligible(
    text: str, windows: list[int | None], answer: int | None
) -> None:
    conversation = read_conversation(prompt=text.replace("\0", "0"), max_tokens=answer)
    least, most = token_bounds(conversation)
    assert least <= most
    try:
        able = eligible(conversation, *(tier(context_window=window) for window in windows))
    except InputError:
        assert all(window is not None and window < least for window in windows)
        return
    assert any(able)
    for window, can in zip(windows, able, strict=True):
        if can:
            assert window is None or window >= least
        if window is None or window >= most:
            assert can
