"""Small made-up parts for tests: an encoder of eight dimensions, examples with a known answer, a trained bundle,
a state folder that serves it, a log."""

import hashlib
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from serving.chat import read_conversation
from serving.classifier.bundle import Bundle, write_bundle
from serving.classifier.encoder import Embedding, EncoderIdentity
from serving.classifier.features import estimated_input_tokens, text_features
from serving.classifier.text_key import text_key
from serving.routing.promoted import Pointer
from serving.tiers import Tier
from training.config import HeadSettings, TrainingConfig
from training.fitting.examples import Examples, prompt_groups, split_parts
from training.fitting.router import fit_bundle, without_encoder

IDENTITY = EncoderIdentity(
    name="fake", revision="1", model_sha256="0" * 64, tokenizer_sha256="1" * 64,
    dimension=8, pooling="none", max_tokens=256,
)  # fmt: skip
TIERS = (
    Tier(name="economy", models=("small",), input_pico_usd=150_000, output_pico_usd=600_000),
    Tier(name="standard", models=("middle",), input_pico_usd=1_000_000, output_pico_usd=4_000_000),
    Tier(name="premium", models=("large",), input_pico_usd=5_000_000, output_pico_usd=20_000_000),
)
CONFIG = TrainingConfig(
    heads=HeadSettings(members="kernel", landmarks=150, gamma=0.004, components=4, trees=30, token_trees=10)
)


class FakeEncoder:
    """Eight numbers from a text's hash: alike for nothing but the same text."""

    identity = IDENTITY

    def __init__(self) -> None:
        self.calls = 0

    def embed(self, text: str) -> Embedding:
        self.calls += 1
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
        vector = np.random.default_rng(seed).normal(size=8).astype(np.float32)
        return Embedding(vector / np.linalg.norm(vector), truncated=False)


def made_up_examples(n: int = 1500, seed: int = 0) -> Examples:
    """Prompts of which short ones are easy: economy is right on them with .95, on long ones with .35."""
    rng = np.random.default_rng(seed)
    encoder = FakeEncoder()
    long = rng.random(n) < 0.5
    texts = [f"Question {seed}-{i}: " + "prove it carefully, " * (20 if hard else 1) for i, hard in enumerate(long)]
    conversations = [read_conversation(prompt=text) for text in texts]
    chance = np.stack([np.where(long, low, 0.95) for low in (0.35, 0.65, 0.93)], axis=1)
    tokens = np.where(long, 400.0, 40.0)[:, None] * np.array([0.8, 1.0, 1.2])
    return Examples(
        id=np.array([f"made-up-{i}" for i in range(n)], object),
        key=np.array([text_key(text) for text in texts], "S64"),
        embedding=np.stack([encoder.embed(text).vector for text in texts]),
        features=np.stack([text_features(conversation) for conversation in conversations]),
        acceptable=(rng.random((n, 3)) < chance).astype(np.float32),
        trust=np.ones((n, 3), np.float32),
        weight=np.full((n, 3), np.nan, np.float32),
        output_tokens=tokens.astype(np.float32),
        input_tokens=np.array([estimated_input_tokens(c) for c in conversations], np.float32),
        cost_usd=np.full((n, 3), np.nan),
        expected=np.full((n, 3), np.nan, np.float32),
        held_out=np.zeros(n, bool),
        rule_words=np.zeros(n, np.float32),
        slices={},
    )


def trained_bundle(folder: Path, *, seed: int = 0, config: TrainingConfig = CONFIG) -> Bundle:
    """A bundle trained on `made_up_examples`, with the fake encoder."""
    examples = made_up_examples(seed=seed)
    groups = prompt_groups(examples, config.same_prompt_cosine)
    part = split_parts(examples, groups, config.split)
    return fit_bundle(folder, examples, part, TIERS, config, FakeEncoder(), groups=groups)[0]


class _FakeLoader:
    @staticmethod
    def load(folder: Path, *, expected: object) -> FakeEncoder:  # noqa: ARG004
        return FakeEncoder()


def fake_home(folder: Path, bundle: Bundle, patch: pytest.MonkeyPatch) -> Path:
    """A state folder whose encoder is the fake one, and a built-in router to fall back on."""
    write_bundle(folder / "built-in", without_encoder(bundle))
    patch.setattr("serving.routing.promoted.BUILT_IN", folder / "built-in")
    patch.setattr("serving.routing.promoted.Encoder", _FakeLoader)
    (folder / "served").mkdir()
    return folder


def place_fake_encoder(home: Path) -> None:
    """So much of the fake encoder that a promotion finds it under a state folder."""
    folder = home / "encoders" / IDENTITY.digest
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encoder.json").write_text(IDENTITY.model_dump_json())


def put_in_service(home: Path, bundle: Bundle, version: str, name: str | None = None) -> Path:
    """Export a bundle and point to it, as a promotion does; gives its folder."""
    folder = home / "served" / (name or version)
    written = write_bundle(folder, bundle)
    point(home, Pointer(version=version, folder=folder.name, digest=written.digest))
    return folder


def point(home: Path, pointer: Pointer) -> None:
    """Replace the pointer, atomically."""
    draft = home / "served" / "draft"
    draft.write_text(pointer.model_dump_json())
    os.replace(draft, home / "served" / "current.json")


def made_up_log(path: Path, n: int = 600, *, seed: int = 0) -> Path:
    """A log of n prompts with all three tiers' outcomes: every tier is right on the short ones with .95, on the long
    ones with .35, .65 and .93."""
    rng = random.Random(seed)
    tiers = (("economy", "small", 0.35, 1), ("standard", "middle", 0.65, 10), ("premium", "large", 0.93, 50))
    lines = []
    for i in range(n):
        hard = rng.random() < 0.5
        tokens = 400 if hard else 40
        outcomes = [
            {
                "tier": tier,
                "model": model,
                "acceptable": rng.random() < (chance if hard else 0.95),
                "usage": {"input_tokens": 30 if hard else 10, "output_tokens": tokens},
                "cost_usd": f"{tokens * price / 1e6:.7f}",
            }
            for tier, model, chance, price in tiers
        ]
        prompt = f"Question {seed}-{i}: " + "prove it carefully, " * (6 if hard else 1)
        lines.append(json.dumps({"id": f"{seed}-{i}", "prompt": prompt, "outcomes": outcomes}))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
