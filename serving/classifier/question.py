"""The question of a prompt, apart from the context before it and the answer options after it.

The same question comes in many forms; what makes it hard is in the question more than in the form.
"""

import re
from dataclasses import dataclass
from typing import Final

_OPTION: Final = re.compile(r"^\(?[A-Ja-j][).:] (.*)$", re.MULTILINE)
_OPTIONS_HEADING: Final = re.compile(r"^(?:Options|Choices|Answer choices):[ \t]*$", re.MULTILINE)
_LABEL: Final = re.compile(r"^(?:Question|Q|Problem|Task|Instruction|Input):", re.MULTILINE)
_SHORTEST: Final = 10  # characters: a label with less behind it labels something else


@dataclass(frozen=True, slots=True)
class Question:
    """`context`: what stands before a label such as "Question:", "" without one. `text`: the question itself.
    `options`: its answer options without their letters; at least two lines make a list of options."""

    context: str
    text: str
    options: tuple[str, ...]


def split_question(text: str) -> Question:
    """The parts of a prompt. Linear in its length."""
    options = list(_OPTION.finditer(text))
    question = text
    listed: tuple[str, ...] = ()
    if len(options) >= 2:
        heading = _OPTIONS_HEADING.search(text)
        question = text[: min(options[0].start(), heading.start()) if heading else options[0].start()]
        listed = tuple(match[1].strip() for match in options)
    context = ""
    labels = list(_LABEL.finditer(question))
    if labels and len(question[labels[-1].end() :].strip()) >= _SHORTEST:
        context, question = question[: labels[-1].start()], question[labels[-1].end() :]
    return Question(context, question.strip(), listed)
