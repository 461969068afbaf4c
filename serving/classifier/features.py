"""What can be read off a conversation without a model: lengths, symbols, code, language, keywords.

Every pattern is linear in the text, and no more than the first and last `SCAN_CHARS` characters are scanned,
so a prompt of any size costs a bounded time; lengths are those of the whole text.
"""

import re
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.chat import Conversation

SCAN_CHARS: Final = 4000
FEATURES_VERSION: Final = 1  # raise it when the value of any feature changes: bundles and data sets are bound to it

# Words that tell kinds of task apart, among them the complexity keywords of the field's rules. One feature a kind:
# a head can weigh them, where a rule cannot.
_KEYWORDS: Final[dict[str, tuple[str, ...]]] = {
    "reasoning": ("why", "prove", "proof", "derive", "reasoning", "explain", "deduce", "infer", "justify"),
    "analysis": (
        "analyze",
        "analyse",
        "compare",
        "evaluate",
        "assess",
        "trade-off",
        "tradeoff",
        "pros",
        "cons",
    ),
    "design": (
        "design",
        "architect",
        "architecture",
        "debug",
        "optimize",
        "optimise",
        "refactor",
        "implement",
    ),
    "maths": (
        "calculate",
        "compute",
        "solve",
        "equation",
        "probability",
        "integral",
        "percent",
        "total",
        "sum",
    ),
    "creative": ("story", "poem", "imagine", "creative", "slogan", "essay", "song", "invent"),
    "rewrite": (
        "rewrite",
        "rephrase",
        "summarize",
        "summarise",
        "summary",
        "shorten",
        "translate",
        "proofread",
    ),
    "extract": ("extract", "classify", "categorize", "label", "list", "identify", "tag", "sentiment"),
    "quantity": ("each", "every", "per", "twice", "half", "times", "more", "less", "than", "remaining"),
}
_STOPWORDS: Final[dict[str, tuple[str, ...]]] = {
    "en": ("the", "of", "and", "to", "is", "in", "that", "it", "for", "with", "a", "are", "this"),
    "de": ("der", "und", "die", "das", "ist", "nicht", "ein", "eine", "mit", "für", "wie", "ich", "zu"),
    "fr": ("le", "les", "et", "des", "est", "une", "pour", "dans", "que", "qui", "pas", "vous", "nous"),
    "es": ("el", "los", "y", "una", "por", "para", "con", "del", "como", "qué", "las", "es", "se"),
}
_WORD_KIND: Final = {word: kind for kind, words in _KEYWORDS.items() for word in words}
_WORD_LANGUAGE: Final = {word: language for language, words in _STOPWORDS.items() for word in words}

_WORD: Final = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")
_OPTION: Final = re.compile(r"^\(?[A-Ja-j][).:] ", re.MULTILINE)
_OPTIONS_HEADING: Final = re.compile(r"^(?:Options|Choices|Answer choices):[ \t]*$", re.MULTILINE)
_LIST_ITEM: Final = re.compile(r"^[ \t]{0,8}(?:[-*•]|\d{1,3}[.)]) ", re.MULTILINE)
_CODE_MARKS: Final = (
    "```", "def ", "import ", "return ", "SELECT ", "function", "#include", "=>", "==", "()", ";\n", "{\n", "\n    ",
)  # fmt: skip
_LATEX: Final = re.compile(r"\\[a-zA-Z]{2,}|\$[^$\n]{1,80}\$|\^\{|_\{")
_CJK: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_OTHER_SCRIPT: Final = re.compile(r"[\u0370-\u1fff]")

_CLASSES: Final = {"digit": b"0123456789", "upper": bytes(range(65, 91)), "operator": b"+-*/=<>^%|&~"}
_CLASS_TABLE: Final = bytes(
    next((ord(name[0]) for name, members in _CLASSES.items() if code in members), 0) for code in range(256)
)

FEATURE_NAMES: Final[tuple[str, ...]] = (
    "log_chars", "log_words", "log_lines", "mean_word_chars", "share_long_words", "log_question_chars",
    "log_last_paragraph_chars", "log_last_line_chars", "options", "list_items", "question_marks",
    "opens_as_question", "ends_as_question", "numbers", "share_digit", "share_upper", "share_operator",
    "parentheses", "quotes", "blanks", "commas_per_word", "code_marks", "latex_marks", "share_non_ascii",
    "share_cjk", "share_other_script", *(f"stopwords_{language}" for language in _STOPWORDS),
    *(f"keywords_{kind}" for kind in _KEYWORDS), "distinct_words", "log_total_chars", "log_system_chars",
    "messages", "user_turns", "tools", "images", "wants_json",
)  # fmt: skip

_QUESTION_OPENERS: Final = frozenset({
    "what", "which", "who", "whom", "whose", "when", "where", "why", "how", "is", "are", "was", "were", "do",
    "does", "did", "can", "could", "should", "would", "will",
})  # fmt: skip


def text_features(conversation: Conversation) -> NDArray[np.float32]:
    """The surface features of a conversation, float32 (len(FEATURE_NAMES),), in that order."""
    text = conversation.last_user_text
    scanned = text if len(text) <= 2 * SCAN_CHARS else f"{text[:SCAN_CHARS]}\n{text[-SCAN_CHARS:]}"
    size = max(len(scanned), 1)
    words = _WORD.findall(scanned.lower())
    count = max(len(words), 1)
    kinds, languages = _tally(words, _WORD_KIND, _KEYWORDS), _tally(words, _WORD_LANGUAGE, _STOPWORDS)
    classes = scanned.encode("ascii", "replace").translate(_CLASS_TABLE)
    plain = scanned.isascii()
    stripped = scanned.rstrip()
    options = [match.start() for match in _OPTION.finditer(scanned)]

    values = [
        _log(len(text)), _log(len(words)), _log(scanned.count("\n")),
        sum(map(len, words)) / count, sum(len(word) > 7 for word in words) / count,
        _log(_question_chars(scanned, options, len(text) - len(scanned))),
        _log(len(stripped.rsplit("\n\n", 1)[-1])), _log(len(stripped.rsplit("\n", 1)[-1])),
        len(options), len(_LIST_ITEM.findall(scanned)), scanned.count("?"),
        bool(words) and words[0] in _QUESTION_OPENERS, stripped.endswith(("?", "？")),
        len(_NUMBER.findall(scanned)),
        *(classes.count(name[0].encode()) / size for name in _CLASSES),
        scanned.count("("), scanned.count('"'), scanned.count("_"), scanned.count(",") / count,
        sum(map(scanned.count, _CODE_MARKS)), len(_LATEX.findall(scanned)) if "\\" in scanned or "$" in scanned else 0,
        0.0 if plain else sum(map((127).__lt__, map(ord, scanned))) / size,
        *((0.0, 0.0) if plain else (_share(_CJK.findall, scanned), _share(_OTHER_SCRIPT.findall, scanned))),
        *(languages[language] / count for language in _STOPWORDS),
        *(min(kinds[kind], 5) for kind in _KEYWORDS),
        len(set(words)) / count,
        _log(conversation.total_chars), _log(conversation.system_chars), min(conversation.messages, 50),
        min(conversation.user_turns, 25), min(conversation.tools, 50), min(conversation.images, 10),
        conversation.wants_json,
    ]  # fmt: skip
    return np.array(values, np.float32)


def estimated_input_tokens(conversation: Conversation) -> float:
    """Tokens of the whole conversation, guessed from characters: four to a token, one and a half for the share of the
    last user turn that is Chinese, Japanese or Korean.

    The guess only ranks costs; what a call really used is counted by its provider.
    """
    text = conversation.last_user_text[: 2 * SCAN_CHARS]
    share = 0.0 if text.isascii() else len(_CJK.findall(text)) / max(len(text), 1)
    return conversation.total_chars / 4 * (1 - share) + conversation.total_chars / 1.5 * share


def _log(count: int) -> float:
    return float(np.log1p(count))


def _tally(words: list[str], kind_of: dict[str, str], kinds: dict[str, tuple[str, ...]]) -> dict[str, int]:
    counts = dict.fromkeys(kinds, 0)
    for word in words:
        if word in kind_of:
            counts[kind_of[word]] += 1
    return counts


def _share(find: Callable[[str], list[str]], text: str) -> float:
    return len(find(text)) / max(len(text), 1)


def _question_chars(scanned: str, options: list[int], unscanned: int) -> int:
    """Length of the question without its answer options: at least two of them make a list of options."""
    if len(options) < 2:
        return len(scanned) + unscanned
    heading = _OPTIONS_HEADING.search(scanned)
    return min(options[0], heading.start()) if heading else options[0]
