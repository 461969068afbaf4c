"""Whether an exported encoder embeds as the model it comes from does: texts to compare on, figures, bars."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from serving.errors import EncoderError

Precision = Literal["int8", "fp32"]
Floats = NDArray[np.float32]

PARITY_TEXTS: Final = (
    "hello",
    "Thanks!",
    "How do I reset my password?",
    "I FORGOT MY PASSWORD AND THE RESET LINK HAS EXPIRED.",
    "17 * 23 = ?",
    "Write a Python function that merges two sorted lists without using sort().",
    "SELECT city, COUNT(*) FROM orders WHERE total > 40.5 GROUP BY city HAVING COUNT(*) > 3;",
    '{"name": "probe", "values": [1, 2, 3], "nested": {"a": null, "b": "x\\ny"}}',
    "Explain in two short paragraphs why the sky is blue at noon and red at dusk, and say which of the two depends on "
    "the angle of the sun.",
    "I have a table of three million rows and forty columns, twelve of them categories with more than a thousand "
    "values each. Which encoding would you choose for gradient boosting, how would you keep the target from leaking "
    "into it, and how would you find out in production that a category you have never seen has become frequent?",
    "def area(r):\n    return 3.14159 * r ** 2\n\nprint(area(2))  # what does this print, and why not 12?",
    "Wie setze ich mein Passwort zurück, wenn ich keinen Zugriff mehr auf meine E-Mails habe?",
    "Résume ce texte en trois phrases et garde les chiffres exacts, s'il te plaît.",
    "¿Cuál es la diferencia entre una lista y una tupla en Python, y cuándo conviene cada una?",
    "Quanto fa 17 per 23, e come si controlla a mente?",
    "Как перевести сто евро в рубли по сегодняшнему курсу?",
    "パスワードを忘れてしまいました。どうすれば再設定できますか？",
    "请用两句话解释相对论，并举一个日常生活中的例子。",
    "비밀번호를 재설정하려면 어떻게 해야 하나요?",
    "كيف أعيد تعيين كلمة المرور إذا نسيت عنوان بريدي؟",
    "मुझे बिना चीनी की चाय बनाने का तरीका बताओ।",
    "Şifremi nasıl sıfırlarım?",
    "Translate into Greek: good morning, we would like two coffees 🙂",
)
"""Written for this: a word to a paragraph, prose, code and data, twelve languages."""


@dataclass(frozen=True)
class Parity:
    """How near the encoder's embeddings are to the model's own, over so many texts.

    mean, least: of the cosine of a text's two embeddings. pairs: correlation, over all pairs of texts, of the pair's
    cosine by the one and by the other; it also tells where a model puts all texts so close together that every
    cosine is high.
    """

    texts: int
    mean: float
    least: float
    pairs: float


_BARS: Final[dict[Precision, Parity]] = {
    "fp32": Parity(texts=0, mean=0.9999, least=0.9999, pairs=0.9999),
    "int8": Parity(texts=0, mean=0.99, least=0.98, pairs=0.99),
}
"""The least of each figure. Figures of two models at both precisions: docs/decisions/2026-11-26-encoders.md."""


def parity(ours: Floats, theirs: Floats) -> Parity:
    """The figures of two sets of embeddings (n, d) of the same n > 2 texts; their lengths do not matter."""
    ours, theirs = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (ours, theirs))
    cosine = (ours * theirs).sum(axis=1)
    pair = np.triu_indices(len(ours), 1)
    correlation = np.corrcoef((ours @ ours.T)[pair], (theirs @ theirs.T)[pair])[0, 1]
    return Parity(len(ours), float(cosine.mean()), float(cosine.min()), float(correlation))


def check_parity(found: Parity, precision: Precision) -> None:
    """Raises EncoderError when a figure is below its bar, or is not a number."""
    bar = _BARS[precision]
    if not (found.mean >= bar.mean and found.least >= bar.least and found.pairs >= bar.pairs):
        advice = "; --precision fp32 may hold" if precision == "int8" else ""
        raise EncoderError(
            f"the exported encoder does not embed as the model does, so it was not written: cosine mean "
            f"{found.mean:.4f}, least {found.least:.4f}, correlation of pairs {found.pairs:.4f} over {found.texts} "
            f"texts, where {precision} needs {bar.mean:g}, {bar.least:g} and {bar.pairs:g}{advice}"
        )
