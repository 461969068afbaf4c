"""What a row of a log may say, and what is said about one that may not."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InputError
from training.logs.json_text import parse_json
from training.logs.record import LoggedRequest, Outcome
from training.logs.rows import FIELDS, request_of


def request(**fields: object) -> LoggedRequest:
    return request_of({"id": "r1", "prompt": "Add 2 and 3.", "model": "small"} | fields)


def refused(**fields: object) -> str:
    with pytest.raises(InputError) as refusal:
        request(**fields)
    return str(refusal.value)


def test_a_row_with_one_answer_becomes_a_request_with_one_outcome():
    read = request(tier="economy", response="five", acceptable=True, usage={"input_tokens": 9, "output_tokens": 1})

    assert read.conversation.last_user_text == "Add 2 and 3."
    [outcome] = read.outcomes
    assert (outcome.model, outcome.tier, outcome.acceptable) == ("small", "economy", True)
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens, outcome.response_chars) == (9, 1, 4)


def test_a_row_with_outcomes_holds_several_models_answers():
    read = request_of({"id": "r1", "prompt": "Hello", "outcomes": [{"model": "a", "score": 0.5}, {"tier": "premium"}]})

    assert [outcome.score for outcome in read.outcomes] == [0.5, None]


def test_a_field_of_an_answer_beside_outcomes_is_refused():
    assert refused(outcomes=[{"model": "a"}]) == (
        "model: is given beside `outcomes`; move it into the outcome it belongs to"
    )


def test_the_path_of_a_fault_leads_into_the_outcome():
    with pytest.raises(InputError, match=r"^outcomes\[1\]\.usage\.input_tokens: should be greater than or equal to 0"):
        request_of(
            {"id": "r", "prompt": "x", "outcomes": [{"model": "a"}, {"model": "b", "usage": {"input_tokens": -1}}]}
        )


def test_a_row_without_an_outcome_is_a_request_that_is_not_judged():
    assert not request().judged
    assert request(feedback={"kind": "edit"}).judged


def test_an_answer_that_is_judged_twice_is_refused():
    assert refused(acceptable=True, score=1.0) == "is judged by acceptable and score; keep one of them"


def test_an_answer_of_nobody_is_refused():
    with pytest.raises(InputError, match="says neither `model` nor `tier`"):
        request_of({"id": "r1", "prompt": "Hello"})


def test_a_mistyped_field_is_named_with_the_one_that_was_meant():
    assert refused(acceptible=True) == "acceptible: is not a field of a log; did you mean `acceptable`?"


def test_other_keys_of_metadata_are_allowed_and_not_kept():
    metadata = request(metadata={"team": "billing", "tenant": "acme"}).metadata

    assert metadata.model_dump() == {"team": "billing", "feature": None, "session_id": None, "task": None}


def test_flat_columns_are_fields_of_metadata_usage_and_feedback():
    read = request(team="billing", input_tokens=7, feedback_kind="escalate")

    assert read.metadata.team == "billing"
    assert read.outcomes[0].usage.input_tokens == 7
    assert read.outcomes[0].feedback is not None
    assert read.outcomes[0].feedback.kind == "escalate"


def test_a_flat_column_beside_the_same_nested_field_is_refused():
    assert refused(team="a", metadata={"team": "b"}) == "team: is given beside `metadata`; keep one of the two"


def test_a_providers_usage_object_is_taken_as_it_is():
    usage = request(usage={"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}).outcomes[0].usage

    assert (usage.input_tokens, usage.output_tokens) == (12, 3)


@pytest.mark.parametrize("usage", [{"inputs": 12}, [12, 3]])
def test_a_usage_without_token_counts_is_refused(usage):
    assert refused(usage=usage).startswith("usage: ")


@pytest.mark.parametrize(
    ("written", "pico_usd"),
    [
        ("0.1", 100_000_000_000),
        ("0.0000000000005", 0),  # half a pico-USD goes to the even neighbour
        ("0.0000000000015", 2),
        ("123456.000000000001", 123_456_000_000_000_001),  # more digits than a float has
        ("1e-6", 1_000_000),
        ("3", 3_000_000_000_000),
    ],
)
def test_a_cost_is_exact_to_the_pico_usd_as_a_number_and_as_text(written, pico_usd):
    row = parse_json(f'{{"id": "r", "prompt": "x", "model": "m", "cost_usd": {written}}}')
    assert isinstance(row, dict)

    assert request_of(row).outcomes[0].cost_pico_usd == pico_usd
    assert request(cost_usd=written).outcomes[0].cost_pico_usd == pico_usd
    assert request(cost_usd=Decimal(written)).outcomes[0].cost_pico_usd == pico_usd


@pytest.mark.parametrize("cost", ["-0.1", "NaN", "Infinity", "1e7", "1e99999", "free", True, [1], -1, float("nan")])
def test_a_cost_that_is_no_sum_of_money_is_refused(cost):
    assert refused(cost_usd=cost).startswith("cost_usd: must be a number of USD")


def test_an_absent_cost_is_unknown_and_not_zero():
    assert request(cost_usd=None).outcomes[0].cost_pico_usd is None


def test_times_are_kept_in_utc():
    assert request(time="2026-03-01T12:00:00+02:00").time == datetime(2026, 3, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("time", ["2026-03-01T12:00:00", "2026-03-01", datetime(2026, 3, 1)])
def test_a_time_without_a_zone_is_refused_saying_to_add_it(time):
    assert refused(time=time) == "time: has no zone; add it, as in 2026-03-01T12:00:00Z"


def test_a_time_that_has_no_date_in_utc_is_refused():
    assert refused(time="0001-01-01T00:00:00+23:00") == "time: lies outside the years 1 to 9999 in UTC"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("score", 1.5),
        ("score", float("nan")),
        ("propensity", 0),
        ("latency_s", -1),
        ("usage", {"input_tokens": True}),
        ("usage", {"input_tokens": 1.5}),
        ("tier", "two words"),
        ("acceptable", "perhaps"),
        ("acceptable", "yes"),
        ("acceptable", 1),
        ("feedback", {"kind": "shrug"}),
        ("messages", "not json"),
        ("id", ""),
    ],
)
def test_a_value_out_of_its_range_is_refused_naming_the_field(field, value):
    assert refused(**{field: value}).startswith(field)


def test_outcomes_that_are_no_list_are_refused():
    with pytest.raises(InputError, match="outcomes: must be a list of objects"):
        request_of({"id": "r", "prompt": "x", "outcomes": {"model": "a"}})


@pytest.mark.parametrize("field", ["model", "response"])
def test_a_lone_surrogate_is_refused(field):
    assert refused(**{field: "a\ud800"}) == (
        f"{field}: holds a lone surrogate at position 1; write well-formed Unicode"
    )


def test_a_lone_surrogate_is_found_in_what_passes_through():
    assert refused(tools=[{"type": "function", "function": {"name": "\udfff"}}]).startswith("tools: holds a lone")


def test_a_prompt_that_holds_a_nul_is_refused():
    assert refused(prompt="a\0b").startswith("prompt: holds a NUL character")


def test_messages_that_cannot_be_read_are_refused_with_their_path():
    assert refused(prompt=None, messages=[{"role": "user"}]).startswith("messages[0].content: ")


def test_messages_and_tools_pass_through_as_sent():
    sent = '[{"type": "function", "function": {"name": "f", "parameters": {"minimum": 0.10}, "x": null}}]'

    read = request(tools=sent)

    assert json.dumps(read.tools) == sent.replace("0.10", "0.1")
    assert read.conversation.tools == 1


def test_a_reason_does_not_quote_the_prompt():
    secret = "the launch code is 4711 and nobody may know"

    for fields in ({"prompt": secret, "score": 2}, {"messages": secret}, {"prompt": None, "messages": [secret]}):
        assert "4711" not in refused(**fields)


def test_nesting_beyond_the_recursion_limit_is_refused():
    assert refused(tools="[" * 100_000 + "]" * 100_000) == "tools: is nested too deeply to be read"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), _JSON, max_size=8))
def test_any_values_of_any_fields_are_a_request_or_an_input_error(row):
    with suppress(InputError):
        assert isinstance(request_of({"id": "r", "prompt": "x", "model": "m"} | row), LoggedRequest)


def test_an_outcome_is_built_in_code_with_its_cost_in_pico_usd():
    assert Outcome(model="m", cost_pico_usd=5).cost_pico_usd == 5
