"""Surface features of a conversation."""

import numpy as np
import pytest

from serving.chat import read_conversation
from serving.classifier.features import FEATURE_NAMES, SCAN_CHARS, estimated_input_tokens, text_features


def features_of(text: str) -> dict[str, float]:
    values = text_features(read_conversation(prompt=text))
    return dict(zip(FEATURE_NAMES, values.tolist(), strict=True))


def test_features_have_the_order_of_their_names() -> None:
    assert text_features(read_conversation(prompt="hello")).shape == (len(FEATURE_NAMES),)
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES)


def test_lengths_are_those_of_the_whole_text() -> None:
    assert features_of("x" * 100_000)["log_chars"] == pytest.approx(np.log1p(100_000), rel=1e-6)


def test_a_question_with_options_is_measured_without_them() -> None:
    found = features_of("Which is a gas?\nA. iron\nB. argon\nC. lead")
    assert found["options"] == 3
    assert found["log_question_chars"] == pytest.approx(np.log1p(len("Which is a gas?")), rel=1e-6)
    assert found["log_option_chars"] == pytest.approx(np.log1p((4 + 5 + 4) / 3), rel=1e-6)
    assert found["opens_as_question"] == 1


def test_one_line_that_looks_like_an_option_is_not_a_list_of_options() -> None:
    text = "A. Turing was born when?"
    assert features_of(text)["log_question_chars"] == pytest.approx(np.log1p(len(text)), rel=1e-6)


def test_numbers_and_operators_are_counted() -> None:
    found = features_of("12 + 30 = 42")
    assert found["log_numbers"] == pytest.approx(np.log1p(3), rel=1e-6)
    assert found["longest_number"] == 2
    assert found["share_operator"] == pytest.approx(2 / 12)


def test_what_stands_before_a_label_is_context_and_not_the_question() -> None:
    plain, labelled = (
        features_of("How many legs has a spider?"),
        features_of("Read.\n\nQuestion: How many legs has a spider?"),
    )
    assert labelled["log_context_chars"] == pytest.approx(np.log1p(len("Read.\n\n")), rel=1e-6)
    assert plain["log_context_chars"] == 0
    assert plain["how_many"] == labelled["how_many"] == 1
    assert plain["log_question_words"] == labelled["log_question_words"] == pytest.approx(np.log1p(6), rel=1e-6)


def test_options_tell_numbers_from_words() -> None:
    numeric, words = features_of("2 + 2?\nA. 3\nB. 4"), features_of("Which?\nA. iron\nB. argon")
    assert (numeric["share_numeric_options"], words["share_numeric_options"]) == (1, 0)
    assert (numeric["share_short_options"], words["share_short_options"]) == (1, 0)
    assert features_of("no options")["log_option_chars"] == -1


def test_sentences_and_the_last_of_them_are_measured() -> None:
    found = features_of("It rains. The road is wet. Why?")
    assert found["sentences"] == 3
    assert found["words_per_sentence"] == pytest.approx(7 / 3)
    assert found["log_last_sentence_chars"] == pytest.approx(np.log1p(len(" Why?")), rel=1e-6)


def test_languages_show_in_their_small_words_and_scripts() -> None:
    assert features_of("Der Hund und die Katze")["stopwords_de"] == pytest.approx(3 / 5)
    assert features_of("请写一首诗")["share_cjk"] == 1.0
    assert features_of("привет")["share_other_script"] == 1.0
    assert features_of("the dog and the cat")["share_non_ascii"] == 0.0


def test_keywords_are_whole_words_and_bounded() -> None:
    assert features_of("analyze, compare and evaluate")["keywords_analysis"] == 3
    assert features_of("designated")["keywords_design"] == 0
    assert features_of("why " * 50)["keywords_reasoning"] == 5


def test_code_is_seen() -> None:
    assert features_of("def f(x):\n    return x == 1")["code_marks"] >= 3
    assert features_of("a plain sentence about nothing")["code_marks"] == 0


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\t", "🙂", "\u200b", "A. ", "…"])
def test_any_text_has_finite_features(text: str) -> None:
    assert np.isfinite(text_features(read_conversation(messages=[user("x"), user(text)]))).all()


def test_what_lies_between_the_scanned_ends_changes_lengths_only() -> None:
    ends = "why? " * (SCAN_CHARS // 5)
    short, long = (features_of(ends + "x" * middle + ends) for middle in (10_000, 900_000))
    different = {name for name in FEATURE_NAMES if short[name] != long[name]}
    assert different == {"log_chars", "log_question_chars"}


def test_input_tokens_are_guessed_from_characters() -> None:
    assert estimated_input_tokens(read_conversation(prompt="a" * 400)) == 100
    assert estimated_input_tokens(read_conversation(prompt="字" * 300)) == 200


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
