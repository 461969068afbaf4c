"""The outcomes in the box: built from public tables without a word of their texts, read as training examples.

One row a prompt: key (sha256 of the text, in hex), embedding as int8 with its scale, features, table, task, split, and
a list each of models, scores, costs and output tokens. Bound to one encoder, whose digest is in the metadata.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from serving.chat import read_conversation
from serving.classifier.encoder import Encoder, EncoderIdentity
from serving.classifier.features import FEATURE_NAMES, FEATURES_VERSION, estimated_input_tokens, text_features
from serving.classifier.proba import sigmoid
from serving.classifier.quantised import dequantised, quantised
from serving.classifier.text_key import text_key
from serving.errors import EncoderError, InputError
from serving.tiers import PICO_PER_USD
from training.fitting.difficulty import rasch
from training.fitting.embeddings import EmbeddingStore
from training.fitting.examples import Examples, label_arrays
from training.labelling.outcomes import Labeller
from training.labelling.summary import LabelSummary
from training.logs.ladder import Ladder
from training.logs.record import Outcome, Usage
from training.progress import progress
from training.shared_words import sharing

TRAINING_TABLES: Final = ("mmlu_pro", "ulab_llmrouter", "routerbench_5shot_subset")
TEST_TABLES: Final = ("routellm_mmlu", "routellm_gsm8k", "routellm_mtbench", "routerarena_sub10")
"""A router trained on the outcomes is measured on these, so nothing of them may be in it."""
_SAME_MODEL: Final = {
    "Meta-Llama-3_1-8B-Instruct": "llama-3.1-8b-instruct",
    "Mistral-7B-Instruct-v0.2": "mistral-7b-instruct-v0.3",
    "mistralai/mistral-7b-chat": "mistral-7b-instruct-v0.3",
    "mistralai/mixtral-8x7b-chat": "Mixtral-8x7B-Instruct-v0.1",
}
"""Models that several tables asked, or versions of one that are alike, by one name: they tie the scales together."""
_MISJUDGED: Final = frozenset({"llama3-chatqa-1.5-70b", "llama3-chatqa-1.5-8b", "claude-v2"})
"""Their scores tell of the form of their answers, not of the prompt: .20, .17 and .55 where models like them have .45
to .75."""
_COLUMNS: Final = [
    "prompt_id",
    "task",
    "prompt",
    "model",
    "score",
    "cost_usd",
    "output_tokens",
    "response_chars",
    "split",
]


def build_public_outcomes(tables: Path, out: Path, encoder: Encoder, store: EmbeddingStore) -> int:
    """Write the training rows that `clean.parquet` allows to `out`; gives the number of prompts.

    tables: a folder with the tables and `clean.parquet`. Raises InputError when one is missing.
    """
    prompts = _clean_prompts(tables)
    with progress("embedding", len(prompts)) as advance:
        for done in store.add(prompts.prompt):
            advance(done)
    conversations = [read_conversation(prompt=text) for text in prompts.prompt]
    keys = [text_key(text) for text in prompts.prompt]
    codes, scale = quantised(store.read(keys))
    features = np.stack([text_features(conversation) for conversation in conversations])
    table = pa.table(
        {
            "key": pa.array(keys, pa.binary(64)),
            "embedding": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(codes.shape[1]), len(codes), [None, pa.py_buffer(codes.tobytes())]
            ),
            "scale": pa.array(scale),
            "features": pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1]),
            "input_tokens": pa.array([estimated_input_tokens(c) for c in conversations], pa.float32()),
            **{name: pa.array(prompts[name]).dictionary_encode() for name in ("table", "task", "split")},
            "model": pa.array(prompts.model, pa.list_(pa.dictionary(pa.int16(), pa.string()))),
            "score": pa.array(prompts.score, pa.list_(pa.float32())),
            "cost_pico_usd": pa.array(prompts.cost_pico_usd, pa.list_(pa.int64())),
            "output_tokens": pa.array(prompts.output_tokens, pa.list_(pa.int32())),
        },
        metadata={
            "encoder": encoder.identity.model_dump_json(),
            "features_version": str(FEATURES_VERSION),
            "feature_names": json.dumps(FEATURE_NAMES),
        },
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, out, compression="zstd", compression_level=19)
    return len(prompts)


def training_texts(tables: Path) -> list[str]:
    """The texts that the outcomes are built from, which are in no file of ours. Raises InputError as above."""
    return list(_clean_prompts(tables).prompt)


def read_public_outcomes(
    path: Path, encoder: EncoderIdentity, labeller: Labeller, ladder: Ladder
) -> tuple[Examples, LabelSummary]:
    """The outcomes as examples, and what their labels amount to; the labeller is for the tiers of the ladder.

    Raises InputError without the file, EncoderError when it is bound to another encoder.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"no public outcomes in {path}: {error}") from None
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    rebuild = "build it again from the public tables: tierwise dataset build TABLES"
    if "encoder" not in metadata:
        raise InputError(f"{path} does not say which encoder its embeddings are by: it is no file of ours; {rebuild}")
    bound = EncoderIdentity.model_validate_json(metadata["encoder"])
    if bound != encoder:
        raise EncoderError(
            f"{path} holds embeddings by {bound.name} {bound.digest[:12]}, not {encoder.name} "
            f"{encoder.digest[:12]}; train on your own log (--logs), or {rebuild} "
            f"--encoder {encoder.digest[:12]}"
        )
    features = int(metadata["features_version"]), tuple(json.loads(metadata["feature_names"]))
    if features != (FEATURES_VERSION, FEATURE_NAMES):
        raise InputError(f"{path} holds other features than this version computes; {rebuild}")
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    n = len(table)
    codes = np.frombuffer(columns["embedding"].buffers()[1], np.int8).reshape(n, -1)
    lists = (columns[name].to_pylist() for name in ("model", "score", "cost_pico_usd", "output_tokens"))
    labels = [labeller(_outcomes(ladder, *row)) for row in zip(*lists, strict=True)]
    expected = _expected(columns["model"].to_pylist(), columns["score"].to_pylist(), ladder)
    summary = LabelSummary(labeller.tiers)
    for row in labels:
        summary.add(row)
    keys, tables = columns["key"].to_pylist(), columns["table"].to_pylist()
    examples = Examples(
        id=np.array([f"{table}:{key[:12].decode()}" for table, key in zip(tables, keys, strict=True)], object),
        key=np.array(keys, "S64"),
        embedding=dequantised(codes, columns["scale"].to_numpy()),
        features=columns["features"].flatten().to_numpy().reshape(n, -1),
        input_tokens=columns["input_tokens"].to_numpy(),
        expected=expected,
        held_out=np.array([split == "test" for split in columns["split"].to_pylist()]),
        rule_words=np.full(n, np.nan, np.float32),  # the file holds no texts
        slices={name: np.array(columns[name].to_pylist(), object) for name in ("table", "task")},
        **label_arrays(labels),
    )
    return examples, summary


def _expected(
    models: Sequence[Sequence[str]], scores: Sequence[Sequence[float]], ladder: Ladder
) -> NDArray[np.float32]:
    """The score to expect of each tier on each prompt, float32 (n, k): by the prompt's difficulty and the mean ability
    of the tier's models, both from all models' answers."""
    answers = [
        (prompt, _SAME_MODEL.get(model, model), min(max(score, 0.0), 1.0))
        for prompt, row in enumerate(zip(models, scores, strict=True))
        for model, score in zip(*row, strict=True)
        if model not in _MISJUDGED
    ]
    prompt, model, score = (np.array(values) for values in zip(*answers, strict=True))
    names, number = np.unique(model, return_inverse=True)
    difficulty, ability = rasch(prompt, number, score, len(models), len(names))
    known = dict(zip(names.tolist(), ability.tolist(), strict=True))
    members = [{_SAME_MODEL.get(model, model) for model in tier.models} & known.keys() for tier in ladder.tiers]
    of_tier = [np.mean([known[name] for name in sorted(of)]) if of else np.nan for of in members]
    return sigmoid(np.array(of_tier) - difficulty[:, None]).astype(np.float32)


def _outcomes(
    ladder: Ladder,
    models: Sequence[str],
    scores: Sequence[float],
    costs: Sequence[int | None],
    tokens: Sequence[int | None],
) -> list[Outcome]:
    return [
        Outcome(
            model=model,
            tier=tier,
            score=score,
            cost_pico_usd=cost,
            usage=Usage(output_tokens=length),
        )
        for model, score, cost, length in zip(models, scores, costs, tokens, strict=True)
        if (tier := ladder.tier_of(model)) is not None
    ]


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=columns)
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise InputError(f"{path}: not a table with {', '.join(columns)}: {error}") from None


def _clean_prompts(tables: Path) -> pd.DataFrame:
    """The prompts of all training tables that `clean.parquet` allows, one row each, less those that share eight words
    in a row with a prompt of a test table."""
    clean = _read(tables / "clean.parquet", ["dataset", "prompt_id", "clean"])
    clean = clean[clean.clean]
    parts = [_prompts(tables, name, set(clean.prompt_id[clean.dataset == name])) for name in TRAINING_TABLES]
    prompts = pd.concat(parts, ignore_index=True)
    tests = [text for name in TEST_TABLES for text in _read(tables / f"{name}.parquet", ["prompt"]).prompt.unique()]
    return prompts[~np.array(sharing(prompts.prompt, tests))].reset_index(drop=True)


def _prompts(tables: Path, name: str, clean: set[str]) -> pd.DataFrame:
    """The clean prompts of one table, one row each, with the lists of what its models did."""
    rows = _read(tables / f"{name}.parquet", _COLUMNS)
    rows = rows[rows.prompt_id.isin(clean) & rows.score.notna()]
    pico = (rows.cost_usd * PICO_PER_USD).round().astype("Int64")  # the source gives floats of some 1e-7 USD
    tokens = rows.output_tokens.fillna((rows.response_chars / 4).round()).astype("Int64")
    rows = rows.assign(cost_pico_usd=pico, output_tokens=tokens).astype(
        {"cost_pico_usd": object, "output_tokens": object}
    )
    rows = rows.where(rows.notna(), None)
    per_prompt = rows.groupby("prompt_id", sort=False)
    prompts = per_prompt[["prompt", "task"]].first()
    lists = per_prompt[["model", "score", "cost_pico_usd", "output_tokens"]].agg(list)
    # mmlu_pro's "split" is the date of a run; only a source's own train/test division is one
    split = per_prompt["split"].first().where(lambda s: s.isin(["train", "test"]), None)
    return prompts.join(lists).assign(split=split, table=name).reset_index(drop=True)
