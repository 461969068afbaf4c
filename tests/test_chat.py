"""Messages as clients send them, right and wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.chat import read_conversation
from serving.errors import InputError


def test_the_last_user_turn_is_what_gets_embedded() -> None:
    conversation = read_conversation(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": [{"type": "text", "text": "three"}, {"type": "image_url", "image_url": {}}]},
        ],
        tools=[{"type": "function"}],
        response_format={"type": "json_object"},
    )
    assert conversation.last_user_text == "three"
    assert conversation.total_chars == len("Be brief.onetwothree")
    assert conversation.system_chars == len("Be brief.")
    assert (conversation.messages, conversation.user_turns, conversation.tools, conversation.images) == (4, 2, 1, 1)
    assert conversation.wants_json


def test_a_tool_result_after_the_user_does_not_hide_the_question() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    result = {"role": "tool", "content": "42", "tool_call_id": "1"}
    conversation = read_conversation(messages=[{"role": "user", "content": "how many?"}, call, result])
    assert conversation.last_user_text == "how many?"


def test_a_system_message_alone_is_routed_by_its_own_text() -> None:
    assert read_conversation(messages=[{"role": "system", "content": "Say hi"}]).last_user_text == "Say hi"


@pytest.mark.parametrize(
    ("request_fields", "where"),
    [
        ({}, "request"),
        ({"messages": [], "prompt": "x"}, "request"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [7]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "a\0b"}, "prompt"),
        ({"prompt": "a\ud800b"}, "prompt"),
        ({"prompt": "x", "tools": {}}, "tools"),
        ({"prompt": "x", "response_format": "json"}, "response_format"),
        ({"prompt": "x", "tools": ["\ud800"]}, "tools"),
        ({"messages": [{"role": "user", "content": "x", "name": "\ud800"}]}, "messages[0]"),
        ({"prompt": "x", "max_tokens": "many"}, "max_tokens"),
        ({"prompt": "x", "max_tokens": True}, "max_tokens"),
        ({"prompt": "x", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "x", "max_tokens": 10**4200}, "max_tokens"),
        ({"prompt": "x", "max_completion_tokens": 0}, "max_completion_tokens"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(request_fields: dict[str, object], where: str) -> None:
    with pytest.raises(InputError) as caught:
        read_conversation(**request_fields)
    assert caught.value.where == where
    assert str(caught.value).startswith(where)


def test_a_refusal_does_not_repeat_a_long_text() -> None:
    secret = "my password is swordfish and more"
    with pytest.raises(InputError) as caught:
        read_conversation(messages=secret)
    assert "swordfish" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["role", "content", "type", "text"]), inner),
    max_leaves=15,
)


@given(messages=json_values, tools=json_values, response_format=json_values)
def test_any_json_is_read_or_refused_with_an_input_error(
    messages: object, tools: object, response_format: object
) -> None:
    try:
        conversation = read_conversation(messages=messages, tools=tools, response_format=response_format)
    except InputError:
        return
    assert conversation.messages > 0
