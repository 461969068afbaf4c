"""Texts that share eight words in a row."""

from training.shared_words import rows_of_words, sharing


def test_eight_words_in_a_row_are_shared_and_seven_are_not() -> None:
    text = "One two three four five six seven eight nine"
    assert sharing(["zero ONE two, three four five six seven eight!"], [text]) == [True]
    assert sharing(["two three four five six seven eight ten"], [text]) == [False]


def test_a_shorter_text_is_compared_whole() -> None:
    assert sharing(["What is a prime?", "What is a prime number?"], ["what is a prime"]) == [True, False]


def test_a_text_has_as_many_rows_as_it_has_places_for_eight_words() -> None:
    assert len(rows_of_words("a b c d e f g h i j")) == 3
    assert rows_of_words("") == {()}
