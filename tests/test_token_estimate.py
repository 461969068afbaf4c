"""Tokens of a text, about: worked by hand from the weights, and near what a tokenizer of OpenAI's counts."""

import pytest

from serving.token_estimate import estimated_tokens

# Worked by hand: .80 a word, .07 a letter, 1.02 a digit, .58 a mark, 1.11 another letter, .72 a line.
BY_HAND = (
    ("", 0), (" ", 1), ("Is it due?", 3), ("2026", 4), ("字" * 10, 11), ("übung", 2), ("a\nb\nc", 4),
)  # fmt: skip


@pytest.mark.parametrize(("text", "tokens"), BY_HAND)
def test_an_estimate_is_a_weighted_count_of_characters(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens


# Of our own writing, counted with o200k_base.
COUNTED = (
    ("Please summarise the minutes of yesterday's meeting in three sentences, and name who is to do what.", 21),
    ("def mean(values: list[float]) -> float:\n    return sum(values) / len(values)\n", 20),
    ('{"id": 17, "name": "Ada", "tags": ["new", "urgent"], "due": "2026-03-01"}', 32),
)


@pytest.mark.parametrize(("text", "tokens"), COUNTED)
def test_an_estimate_is_near_what_a_tokenizer_counts(text: str, tokens: int) -> None:
    assert abs(estimated_tokens(text) / tokens - 1) < 0.2
