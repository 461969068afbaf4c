"""What a log's heads start from, made of the outcomes in the box."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.factories import CONFIG as SMALL
from tests.factories import TIERS, FakeEncoder, made_up_examples
from training.config import HeadSettings, TrainingConfig
from training.encoders import DEFAULT_ENCODER
from training.fitting.examples import PARTS, prompt_groups, split_parts
from training.fitting.prior import fit_prior
from training.fitting.router import fit_bundle
from training.pipeline import public_prior

CONFIG = TrainingConfig(heads=HeadSettings(landmarks=10))


class DefaultByName(FakeEncoder):
    """The encoder that the outcomes in the box are bound to; none of its embeddings are needed here."""

    identity = DEFAULT_ENCODER


def test_a_prior_names_the_prompts_it_was_fitted_on_without_those_of_the_log() -> None:
    own = replace(made_up_examples(10), embedding=np.zeros((10, DEFAULT_ENCODER.dimension), np.float32))
    said: list[str] = []
    whole = public_prior(own, DefaultByName(), CONFIG, said.append)
    assert whole is not None
    copied = replace(own, key=whole.keys[:10].copy())
    rest = public_prior(copied, DefaultByName(), CONFIG, said.append)
    assert rest is not None
    assert set(whole.keys) - set(rest.keys) == set(whole.keys[:10])
    assert said[0].startswith(f"prior: {len(whole.keys):,} public prompts")


def test_without_the_public_outcomes_a_log_is_fitted_from_nothing_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.DATASETS", tmp_path)  # an installation without the data in the box
    said: list[str] = []
    assert public_prior(made_up_examples(10), DefaultByName(), CONFIG, said.append) is None
    assert said[0].startswith("prior: none, for ")


def test_with_another_encoder_a_log_is_fitted_from_nothing() -> None:
    said: list[str] = []
    assert public_prior(made_up_examples(10), FakeEncoder(), CONFIG, said.append) is None
    assert "holds embeddings by" in said[0]


def test_what_the_prior_was_fitted_on_counts_as_seen_by_the_bundle(tmp_path: Path) -> None:
    own, public = made_up_examples(600), made_up_examples(300, seed=7)
    groups = prompt_groups(own, SMALL.same_prompt_cosine)
    part = split_parts(own, groups, SMALL.split)
    prior = fit_prior(public, SMALL.heads, seed=0)
    bundle, _ = fit_bundle(tmp_path / "b", own, part, TIERS, SMALL, FakeEncoder(), groups=groups, prior=prior)
    assert bundle.trained_on is not None
    np.testing.assert_array_equal(bundle.trained_on.has_seen(public.key), True)
    np.testing.assert_array_equal(bundle.trained_on.has_seen(own.key), part != PARTS.index("test"))
