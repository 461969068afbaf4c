"""The question of a prompt, apart from the context before it and the answer options after it.

The same question comes in many forms; what makes it hard is in the question more than in the form.
"""

import re
from dataclasses import dataclass
from typing import Final

_OPTION: Final = re.compile(r"^\(?([A-Ja-j])[).:] (.*)$", re.MULTILINE)
_OPTIONS_HEADING: Final = re.compile(r"^(?:Options|Choices|Answer choices):[ \t]*$", re.MULTILINE)
_LABEL: Final = re.compile(r"^(?:Question|Q|Problem|Task|Instruction|Input):", re.MULTILINE)
_SHORTEST: Final = 10  # characters: a label with less behind it labels something else


@dataclass(frozen=True, slots=True)
class Question:
    """`context`: what stands before it, examples with their own options among it; "" where nothing tells it apart.
    `text`: the question itself. `options`: its answer options without their letters, at least two lines whose letters
    rise."""

    context: str
    text: str
    options: tuple[str, ...]


def split_question(text: str) -> Question:
    """The parts of a prompt; of several questions the last is asked. Linear in its length."""
    begin, options = _last_options(text)
    question = text
    if options:
        question = text[begin : options[0].start()]
        headings = list(_OPTIONS_HEADING.finditer(question))
        question = question[: headings[-1].start()] if headings else question
    context = text[:begin]
    labels = list(_LABEL.finditer(question))
    if labels and len(question[labels[-1].end() :].strip()) >= _SHORTEST:
        context, question = context + question[: labels[-1].start()], question[labels[-1].end() :]
    return Question(context, question.strip(), tuple(match[2].strip() for match in options))


def _last_options(text: str) -> tuple[int, list[re.Match[str]]]:
    """Where the options before the last ones end, and the last ones, whose letters rise; none if fewer than two."""
    begin = 0
    options: list[re.Match[str]] = []
    for match in _OPTION.finditer(text):
        if options and match[1].lower() <= options[-1][1].lower():
            begin, options = options[-1].end(), []
        options.append(match)
    return (begin, options) if len(options) >= 2 else (0, [])
