"""The public tables as examples: which models are weak and strong in each, and how they are split.

The texts of the tables are read where they are and kept nowhere.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving.classifier.text_key import text_key
from serving.tiers import Tier
from training.config import TrainingConfig
from training.encoders import DEFAULT_ENCODER, encoder_for
from training.fitting.embeddings import EmbeddingStore
from training.fitting.examples import Examples, prompt_groups
from training.fitting.from_logs import read_examples
from training.labelling.outcomes import Labeller
from training.logs.ladder import Ladder, read_prices

MIXTRAL: Final = "mistralai/Mixtral-8x7B-Instruct-v0.1"
GPT4: Final = "gpt-4-1106-preview"


@dataclass(frozen=True)
class Table:
    """file: its name without the ending. tiers: the models of each tier, cheapest first. own_split: the source divides
    it into train and test. split: only these rows are used."""

    name: str
    file: str
    tiers: tuple[tuple[str, ...], ...]
    own_split: bool = False
    split: str | None = None


PAIRS: Final = (
    Table("MMLU", "routellm_mmlu", ((MIXTRAL,), (GPT4,)), split="eval"),
    Table("GSM8K", "routellm_gsm8k", ((MIXTRAL,), (GPT4,)), split="eval"),
    Table("MT-Bench", "routellm_mtbench", ((MIXTRAL,), (GPT4,)), split="eval"),
    Table("RouterArena", "routerarena_sub10", (("claude-3-haiku-20240307",), ("gemini-2.0-flash-001",))),
    Table("RouterBench", "routerbench_5shot_subset", (("mistralai/mixtral-8x7b-chat",), (GPT4,)), own_split=True),
    Table("LLMRouter", "ulab_llmrouter", (("gemma-2-9b-it",), ("llama-3.1-nemotron-51b-instruct",)), own_split=True),
    Table("MMLU-Pro", "mmlu_pro", (("Mixtral-8x7B-Instruct-v0.1",), ("gpt-4o-2024-05-13",))),
)
"""One weak and one strong model each."""
LADDERS: Final = (
    Table(
        "RouterBench, three tiers",
        "routerbench_5shot_subset",
        (("mistralai/mistral-7b-chat",), ("mistralai/mixtral-8x7b-chat", "gpt-3.5-turbo-1106"), (GPT4,)),
        own_split=True,
    ),
    Table(
        "RouterBench, five models",
        "routerbench_5shot_subset",
        (("mistralai/mistral-7b-chat",), ("mistralai/mixtral-8x7b-chat",), ("zero-one-ai/Yi-34B-Chat",),
         ("gpt-3.5-turbo-1106",), (GPT4,)),
        own_split=True,
    ),
    Table(
        "RouterBench, eleven models",
        "routerbench_5shot_subset",
        (("mistralai/mistral-7b-chat",), ("WizardLM/WizardLM-13B-V1.2",), ("mistralai/mixtral-8x7b-chat",),
         ("meta/code-llama-instruct-34b-chat",), ("zero-one-ai/Yi-34B-Chat",), ("claude-instant-v1",),
         ("meta/llama-2-70b-chat",), ("gpt-3.5-turbo-1106",), ("claude-v1",), ("claude-v2",), (GPT4,)),
        own_split=True,
    ),
    Table(
        "MMLU-Pro, three tiers",
        "mmlu_pro",
        (("Meta-Llama-3_1-8B-Instruct", "Mistral-7B-Instruct-v0.2"),
         ("gemini-1.5-flash-002", "Mixtral-8x7B-Instruct-v0.1", "Meta-Llama-3_1-70B-Instruct"),
         ("gemini-1.5-pro-002", "gpt-4o-2024-05-13")),
    ),
)  # fmt: skip


def named(name: str) -> Table:
    """The table of that name."""
    return next(table for table in (*PAIRS, *LADDERS) if table.name == name)


@dataclass(frozen=True)
class Sources:
    """folder: with the tables. home: where embeddings are kept."""

    folder: Path
    home: Path

    def examples(self, table: Table) -> Examples:
        """Every prompt of the table with an outcome for each of its tiers. Scores count as they are, graded or not."""
        return _examples(self.folder, self.home, table)

    def groups(self, table: Table) -> NDArray[np.intp]:
        """Prompts alike share a group, (n,)."""
        return _groups(self.folder, self.home, table)

    def texts(self, table: Table, examples: Examples) -> NDArray[np.object_]:
        """The texts of the examples, (n,)."""
        texts = pd.read_parquet(self.folder / f"{table.file}.parquet", columns=["prompt"]).prompt.unique()
        known = {text_key(text): text for text in texts}
        return np.array([known[key] for key in examples.key], object)


@cache
def _examples(folder: Path, home: Path, table: Table) -> Examples:
    names = (
        ("economy", "standard", "premium") if len(table.tiers) == 3 else [f"tier{i}" for i in range(len(table.tiers))]
    )
    ladder = Ladder(tiers=tuple(Tier(name=name, models=of) for name, of in zip(names, table.tiers, strict=True)))
    if (folder / "prices.csv").exists():
        ladder = ladder.with_prices(read_prices(folder / "prices.csv"))
    config = TrainingConfig()
    labeller = Labeller(ladder.names, None, config.feedback_weight, config.max_weight)
    store = EmbeddingStore(home / "embeddings", encoder_for(home, DEFAULT_ENCODER))
    path = folder / f"{table.file}.parquet"
    examples, _ = read_examples([path], ladder, labeller, store, split=table.split)
    return examples.take(~np.isnan(examples.acceptable).any(axis=1))


@cache
def _groups(folder: Path, home: Path, table: Table) -> NDArray[np.intp]:
    return prompt_groups(_examples(folder, home, table), TrainingConfig().same_prompt_cosine)


def held_out(table: Table, examples: Examples, groups: NDArray[np.intp], seed: int) -> NDArray[np.bool_]:
    """The test part, (n,): the source's own where it has one, otherwise 30 % of the groups, drawn by the seed."""
    if table.own_split:
        return examples.held_out
    distinct, group = np.unique(groups, return_inverse=True)
    return np.asarray((np.random.default_rng(seed).random(len(distinct)) < 0.3)[group], np.bool_)
