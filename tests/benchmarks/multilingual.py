"""What an encoder finds in six languages: the other wording of a prompt, and its English original.

python -m tests.benchmarks.multilingual [ENCODER …] prints one JSON line for each encoder and language. ENCODER: as
`encoder` in [training]. multilingual.jsonl has 40 prompts, each in two wordings in six languages, translations of each
other, written for this.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.encoder import Encoder
from training.encoders import chosen_encoder

PROMPTS: Final = Path(__file__).with_name("multilingual.jsonl")
_RESAMPLES: Final = 10_000
Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.multilingual")
    parser.add_argument("encoders", nargs="*", default=["default"], metavar="ENCODER")
    parser.add_argument("--home", type=Path, default=Path(".tierwise"), help="where the default encoder is kept")
    options = parser.parse_args()
    for name in options.encoders:
        for line in measure(name, options.home):
            print(json.dumps(line, ensure_ascii=False), flush=True)


def measure(name: str, home: Path) -> list[dict[str, object]]:
    """A line for each language; shares are of 80 queries, with a 95 % interval over the 40 prompts."""
    prompts = [json.loads(line) for line in PROMPTS.read_text("utf-8").splitlines()]
    encoder = chosen_encoder(home, name)
    encoder.embed("the first run loads")
    vectors, cpu_ms = {}, {}
    for language in prompts[0]:
        texts = [text for prompt in prompts for text in prompt[language]]
        started = time.process_time()
        found = np.stack([encoder.embed(text).vector for text in texts])
        cpu_ms[language] = 1000 * (time.process_time() - started) / len(texts)
        vectors[language] = found.reshape(len(prompts), 2, -1)
    english = vectors["en"]
    lines = []
    for language, own in vectors.items():
        line: dict[str, object] = {"encoder": name, "language": language, "cpu_ms": round(cpu_ms[language], 2)}
        line |= _tokens(encoder, [text for prompt in prompts for text in prompt[language]]) | _cosines(own)
        line["paraphrase_first"] = _share(_found(own, own[:, ::-1]))
        if language != "en":
            line["translation_first"] = _share(_found(own, english))
        lines.append(line)
    return lines


def _tokens(encoder: Encoder, texts: Sequence[str]) -> dict[str, object]:
    """Tokens a text, and the share of them that stand for words the encoder does not know."""
    ids = [encoder.tokenize(text)[0][1:-1] for text in texts]
    known = map(encoder._tokenizer.token_to_id, ("[UNK]", "<unk>"))
    unknown = next(token for token in known if token is not None)
    count = sum(map(len, ids))
    return {
        "tokens": round(count / len(texts), 1),
        "unknown": round(sum(token == unknown for text in ids for token in text) / count, 3),
    }


def _cosines(vectors: NDArray[np.float32]) -> dict[str, object]:
    """Of a prompt's wordings (prompts, 2, d): 5th percentile, median; of two prompts: median, 95th, greatest."""
    same = (vectors[:, 0] * vectors[:, 1]).sum(axis=1)
    different = (vectors[:, 0] @ vectors[:, 0].T)[np.triu_indices(len(vectors), 1)]
    return {
        "cosine_paraphrase": np.quantile(same, (0.05, 0.5)).round(3).tolist(),
        "cosine_different": np.quantile(different, (0.5, 0.95, 1)).round(3).tolist(),
    }


def _found(queries: NDArray[np.float32], candidates: NDArray[np.float32]) -> Floats:
    """The share of a prompt's two wordings (prompts, 2, d) whose nearest candidate, of the 40 in place of the same
    wording, belongs to the prompt."""
    right = [
        (queries[:, i] @ candidates[:, i].T).argmax(axis=1) == np.arange(len(queries)) for i in range(queries.shape[1])
    ]
    return np.mean(right, axis=0)


def _share(found: Floats) -> list[float]:
    """The mean, and the ends of its 95 % percentile bootstrap interval."""
    rng = np.random.default_rng(0)
    means = found[rng.integers(0, len(found), (_RESAMPLES, len(found)))].mean(axis=1)
    return [round(float(value), 3) for value in (found.mean(), *np.quantile(means, (0.025, 0.975)))]


if __name__ == "__main__":
    main()
