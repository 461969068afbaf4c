"""What can be read off a conversation without a model: lengths, symbols, code, language, keywords.

Every pattern is linear in the text, and no more than the first and last `SCAN_CHARS` characters are scanned,
so a prompt of any size costs a bounded time; lengths are those of the whole text.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.chat import Conversation
from serving.classifier.question import split_question

SCAN_CHARS: Final = 4000
FEATURES_VERSION: Final = 2  # raise it when the value of any feature changes: bundles and data sets are bound to it

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
}
_QUANTITIES: Final = frozenset({
    "each", "every", "per", "twice", "half", "times", "more", "less", "than", "remaining", "total", "average",
    "altogether", "left", "third", "quarter", "double", "triple", "rest", "both",
})  # fmt: skip
_STOPWORDS: Final[dict[str, tuple[str, ...]]] = {
    "en": ("the", "of", "and", "to", "is", "in", "that", "it", "for", "with", "a", "are", "this"),
    "de": ("der", "und", "die", "das", "ist", "nicht", "ein", "eine", "mit", "für", "wie", "ich", "zu"),
    "fr": ("le", "les", "et", "des", "est", "une", "pour", "dans", "que", "qui", "pas", "vous", "nous"),
    "es": ("el", "los", "y", "una", "por", "para", "con", "del", "como", "qué", "las", "es", "se"),
}
_WORD_KIND: Final = {word: kind for kind, words in _KEYWORDS.items() for word in words}
_WORD_LANGUAGE: Final = {word: language for language, words in _STOPWORDS.items() for word in words}

_UNITS: Final = frozenset({
    "km", "kg", "cm", "mm", "m", "g", "s", "h", "hz", "ev", "j", "n", "pa", "mol", "k", "l", "ml", "kw", "w", "v",
    "ohm", "ft", "lb", "lbs", "mph", "miles", "feet", "inches", "meters", "pounds", "gallons", "minute", "minutes",
    "hour", "hours", "days", "weeks", "months", "year", "years", "dollar", "dollars", "cents", "percent",
})  # fmt: skip
_NEGATIONS: Final = frozenset({
    "not", "except", "never", "none", "cannot", "least", "incorrect", "false", "neither", "nor", "unless", "without",
})  # fmt: skip
_CONDITIONS: Final = frozenset({
    "if", "because", "therefore", "since", "suppose", "given", "assume", "let", "when", "then", "thus", "hence",
    "implies",
})  # fmt: skip
_OPENERS: Final = ("what", "which", "who", "where", "when", "why", "how")

_WORD: Final = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE_END: Final = re.compile(r"[.!?](?=\s|$)")
_CAPITALISED: Final = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]")  # not where a sentence begins
_HOW_MANY: Final = re.compile(r"\bhow (?:many|much|long|far|old|fast|often)\b")
_LIST_ITEM: Final = re.compile(r"^[ \t]{0,8}(?:[-*•]|\d{1,3}[.)]) ", re.MULTILINE)
_CODE_MARKS: Final = (
    "```", "def ", "import ", "return ", "SELECT ", "function", "#include", "=>", "==", "()", ";\n", "{\n", "\n    ",
)  # fmt: skip
_LATEX: Final = re.compile(r"\\[a-zA-Z]{2,}|\$[^$\n]{1,80}\$|\^\{|_\{")
_CJK: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_OTHER_SCRIPT: Final = re.compile(r"[\u0370-\u1fff]")
_OPERATORS: Final = str.maketrans("", "", "+-*/=<>^%")

_FORM: Final = (
    "log_chars", "log_context_chars", "list_items", "code_marks", "latex_marks", "share_non_ascii", "share_cjk",
    "share_other_script", *(f"stopwords_{language}" for language in _STOPWORDS),
    *(f"keywords_{kind}" for kind in _KEYWORDS),
)  # fmt: skip
_QUESTION: Final = (
    "log_question_chars", "log_question_words", "sentences", "words_per_sentence", "mean_word_chars",
    "share_long_words", "distinct_words", "log_numbers", "distinct_numbers", "longest_number", "decimals",
    "log_last_sentence_chars", "units", "quantities", "negations", "conditions", "how_many", "share_capitalised",
    "commas", "parentheses", "quotes", "lines", "blanks", "dollars", "share_backslash", "share_operator",
    "opens_as_question", "ends_as_question", "ends_as_statement",
)  # fmt: skip
_OPTIONS: Final = ("options", "log_option_chars", "log_option_spread", "share_numeric_options", "share_short_options")
_CONVERSATION: Final = (
    "log_earlier_chars", "log_system_chars", "messages", "user_turns", "tools", "images", "wants_json",
)  # fmt: skip
FEATURE_NAMES: Final[tuple[str, ...]] = (*_FORM, *_QUESTION, *_OPTIONS, *_CONVERSATION)


def text_features(conversation: Conversation) -> NDArray[np.float32]:
    """The surface features of a conversation, float32 (len(FEATURE_NAMES),), in that order."""
    text = conversation.last_user_text
    scanned = text if len(text) <= 2 * SCAN_CHARS else f"{text[:SCAN_CHARS]}\n{text[-SCAN_CHARS:]}"
    question = split_question(scanned)
    words = asked = _WORD.findall(scanned.lower())
    if question.context or question.options:
        asked = _WORD.findall(question.text.lower())
    return np.array(
        [
            *_form_features(scanned, words, len(text), len(question.context)),
            *_question_features(question.text, asked, len(text) - len(scanned)),
            *_option_features(question.options),
            _log(conversation.total_chars - len(text)), _log(conversation.system_chars), min(conversation.messages, 50),
            min(conversation.user_turns, 25), min(conversation.tools, 50), min(conversation.images, 10),
            conversation.wants_json,
        ],
        np.float32,
    )  # fmt: skip


def _form_features(scanned: str, words: list[str], chars: int, context_chars: int) -> list[float]:
    """Of the whole text: its length, its marks and its small words."""
    plain, size, count = scanned.isascii(), max(len(scanned), 1), max(len(words), 1)
    tally = Counter(words)
    kinds, languages = _kinds(tally, _WORD_KIND), _kinds(tally, _WORD_LANGUAGE)
    return [
        _log(chars), _log(context_chars), len(_LIST_ITEM.findall(scanned)), sum(map(scanned.count, _CODE_MARKS)),
        len(_LATEX.findall(scanned)) if "\\" in scanned or "$" in scanned else 0,
        0.0 if plain else sum(map((127).__lt__, map(ord, scanned))) / size,
        *((0.0, 0.0) if plain else (_share(_CJK.findall, scanned), _share(_OTHER_SCRIPT.findall, scanned))),
        *(languages[language] / count for language in _STOPWORDS),
        *(min(kinds[kind], 5) for kind in _KEYWORDS),
    ]  # fmt: skip


def _question_features(text: str, words: list[str], unscanned: int) -> list[float]:
    """Of the question alone, and its words in lower case; `unscanned` characters of it were left out."""
    lower = text.lower()
    count, size = max(len(words), 1), max(len(text), 1)
    numbers = _NUMBER.findall(text)
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    sentences = max(len(ends), 1)
    last = text[max((end for end in ends if end < len(text)), default=0) :]
    tally = Counter(words)
    return [
        _log(len(text) + unscanned), _log(len(words)), sentences, len(words) / sentences,
        sum(map(len, words)) / count, sum(len(word) > 7 for word in words) / count, len(tally) / count,
        _log(len(numbers)), len(set(numbers)), max(map(len, numbers), default=0), any("." in n for n in numbers),
        _log(len(last)), _counted(tally, _UNITS), _counted(tally, _QUANTITIES), _counted(tally, _NEGATIONS),
        _counted(tally, _CONDITIONS), len(_HOW_MANY.findall(lower)), len(_CAPITALISED.findall(text)) / count,
        text.count(","), text.count("("), text.count('"'), text.count("\n"), text.count("_"), text.count("$"),
        text.count("\\") / size, (len(text) - len(text.translate(_OPERATORS))) / size,
        lower.startswith(_OPENERS), text.endswith(("?", "？")), text.endswith((":", "_", ".")),
    ]  # fmt: skip


def _option_features(options: Sequence[str]) -> list[float]:
    """Of the answer options; -1 where there are none, which is not the same as short ones."""
    if not options:
        return [0.0, -1.0, -1.0, -1.0, -1.0]
    lengths = [len(option) for option in options]
    mean = sum(lengths) / len(lengths)
    spread = math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths))
    numeric = sum(_NUMBER.search(option) is not None for option in options)
    short = sum(len(_NUMBER.sub("", option)) < 4 for option in options)
    return [len(options), math.log1p(mean), math.log1p(spread), numeric / len(options), short / len(options)]


def estimated_input_tokens(conversation: Conversation) -> float:
    """Tokens of the whole conversation, guessed from characters: four to a token, one and a half for the share of the
    last user turn that is Chinese, Japanese or Korean.

    The guess only ranks costs; what a call really used is counted by its provider.
    """
    text = conversation.last_user_text[: 2 * SCAN_CHARS]
    share = 0.0 if text.isascii() else len(_CJK.findall(text)) / max(len(text), 1)
    return conversation.total_chars / 4 * (1 - share) + conversation.total_chars / 1.5 * share


def _log(count: int) -> float:
    return math.log1p(count)


def _kinds(tally: Mapping[str, int], kind_of: Mapping[str, str]) -> Counter[str]:
    """How many of the words are of each kind."""
    counts: Counter[str] = Counter()
    for word in kind_of.keys() & tally.keys():
        counts[kind_of[word]] += tally[word]
    return counts


def _share(find: Callable[[str], list[str]], text: str) -> float:
    return len(find(text)) / max(len(text), 1)


def _counted(tally: Mapping[str, int], kind: Set[str]) -> int:
    return sum(tally[word] for word in kind & tally.keys())
