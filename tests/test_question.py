"""The question of a prompt, apart from its context and its options."""

import pytest

from serving.classifier.question import Question, split_question


def test_a_plain_prompt_is_all_question() -> None:
    assert split_question("Why is the sky blue?\n") == Question("", "Why is the sky blue?", ())


def test_options_are_taken_off_with_their_heading() -> None:
    found = split_question("Which is a gas?\nOptions:\nA. iron\n(B) argon \nC: lead\nAnswer:")
    assert found == Question("", "Which is a gas?", ("iron", "argon", "lead"))


def test_a_single_line_like_an_option_is_part_of_the_question() -> None:
    assert split_question("A. Turing was born when?").text == "A. Turing was born when?"


@pytest.mark.parametrize("label", ["Question", "Q", "Problem", "Task", "Instruction", "Input"])
def test_the_last_label_begins_the_question(label: str) -> None:
    found = split_question(f"A text.\nQ: an example of one\n{label}: How long is the Rhine?")
    assert (found.context, found.text) == ("A text.\nQ: an example of one\n", "How long is the Rhine?")


def test_of_several_questions_with_options_the_last_is_asked() -> None:
    first = "Which is a gas?\nA. iron\nB. argon\nAnswer: B\n\n"
    for label in ("", "Question: "):
        found = split_question(
            f"{label}{first}{label}Which planet is the largest?\nOptions:\nA. Mars\nB. Jupiter\nAnswer:"
        )
        assert found.options == ("Mars", "Jupiter")
        assert found.text.endswith("Which planet is the largest?")
        assert "Which is a gas?" in found.context


def test_the_answers_of_a_transcript_are_no_options() -> None:
    found = split_question("Q: How many legs has an ant?\nA: Six.\nQ: How many has a spider?\nA: Eight.")
    assert found.options == ()
    assert found.text == "How many has a spider?\nA: Eight."


def test_a_label_with_nothing_behind_it_is_no_beginning() -> None:
    assert split_question("Say what you think of this.\nInput: x").context == ""
