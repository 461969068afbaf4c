"""Usage in each provider's form, read into one."""

import pytest

from serving.errors import InputError
from serving.ledger.reported import read_usage
from serving.ledger.usage import Usage


def test_openai_chat_counts_cached_and_reasoning_tokens_within() -> None:
    reported = {
        "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 30, "accepted_prediction_tokens": 0},
    }  # fmt: skip
    assert read_usage(reported) == Usage(
        input_tokens=100, cached_input_tokens=64, input_audio_tokens=0, output_tokens=50, reasoning_tokens=30
    )


def test_openai_responses_are_the_same_by_other_names() -> None:
    reported = {
        "input_tokens": 100, "output_tokens": 50, "total_tokens": 150,
        "input_tokens_details": {"cached_tokens": 64}, "output_tokens_details": {"reasoning_tokens": 30},
    }  # fmt: skip
    assert read_usage(reported) == Usage(
        input_tokens=100, cached_input_tokens=64, output_tokens=50, reasoning_tokens=30
    )


def test_openai_embeddings_have_no_output() -> None:
    assert read_usage({"prompt_tokens": 8, "total_tokens": 8}) == Usage(input_tokens=8)


def test_anthropic_counts_cached_tokens_beside_the_others() -> None:
    reported = {
        "input_tokens": 10, "cache_read_input_tokens": 70, "cache_creation_input_tokens": 20, "output_tokens": 5,
        "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5},
    }  # fmt: skip
    assert read_usage(reported) == Usage(
        input_tokens=100, cached_input_tokens=70, cache_write_tokens=20, cache_write_1h_tokens=5, output_tokens=5
    )


def test_what_else_a_provider_reports_is_passed_over() -> None:
    reported = {"input_tokens": 10, "output_tokens": 5, "service_tier": "standard", "server_tool_use": None}
    assert read_usage(reported) == Usage(input_tokens=10, output_tokens=5)


def test_reasoning_that_is_counted_beside_the_answer_is_told_by_the_total() -> None:
    reported = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 45,
                "completion_tokens_details": {"reasoning_tokens": 30}}  # fmt: skip
    assert read_usage(reported) == Usage(input_tokens=10, output_tokens=35, reasoning_tokens=30)


def test_google_counts_thoughts_beside_the_answer() -> None:
    reported = {
        "promptTokenCount": 100, "cachedContentTokenCount": 30, "candidatesTokenCount": 40, "thoughtsTokenCount": 25,
        "totalTokenCount": 165,
    }  # fmt: skip
    assert read_usage(reported) == Usage(
        input_tokens=100, cached_input_tokens=30, output_tokens=65, reasoning_tokens=25
    )


def test_google_counts_audio_and_tools_apart_and_leaves_out_a_zero() -> None:
    reported = {
        "promptTokenCount": 100, "toolUsePromptTokenCount": 20, "totalTokenCount": 120,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 60}, {"modality": "AUDIO", "tokenCount": 40}],
    }  # fmt: skip
    assert read_usage(reported) == Usage(input_tokens=120, input_audio_tokens=40, output_tokens=0)
    cut_off = reported | {"totalTokenCount": 150}
    assert read_usage(cut_off) == Usage(input_tokens=120, input_audio_tokens=40)


def test_what_gateways_and_deepseek_say_of_a_cache_is_read() -> None:
    gateway = {"prompt_tokens": 50, "completion_tokens": 5, "prompt_tokens_details": {"cache_write_tokens": 30}}
    assert read_usage(gateway) == Usage(input_tokens=50, cache_write_tokens=30, output_tokens=5)
    deepseek = {"prompt_tokens": 50, "completion_tokens": 5, "prompt_cache_hit_tokens": 20}
    assert read_usage(deepseek) == Usage(input_tokens=50, cached_input_tokens=20, output_tokens=5)


def test_our_own_form_is_read_as_it_is() -> None:
    assert read_usage({"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}) == Usage(
        input_tokens=3, output_tokens=4
    )


@pytest.mark.parametrize("nothing", [None, {}, {"prompt_tokens": None, "completion_tokens": None}])
def test_what_says_nothing_is_unknown(nothing: object) -> None:
    assert read_usage(nothing) is None


@pytest.mark.parametrize(
    ("reported", "reason"),
    [
        ([1], "usage: must be an object, not list"),
        ({"prompt_tokens": -1}, "usage: input_tokens: Input should be greater than or equal to 0"),
        ({"prompt_tokens": "12"}, "usage: input_tokens: Input should be a valid integer"),
        ({"prompt_tokens": True}, "usage: input_tokens: Input should be a valid integer"),
        ({"prompt_tokens": 1.5}, "usage: input_tokens: Input should be a valid integer"),
        ({"input_tokens": "9", "cache_read_input_tokens": 1}, "usage: input_tokens: Input should be a valid integer"),
        ({"prompt_tokens": 10**30}, "usage: input_tokens: Input should be less than or equal"),
        ({"tokens": 5}, "usage: counts no tokens under a name that is known, such as prompt_tokens"),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}, "more than its 5 input_tokens"),
        ({"output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 9}}, "more than its 5 output_tokens"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(reported: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_usage(reported)
