"""Examples, their groups and their split."""

import numpy as np
import pytest

from serving.classifier.quantised import dequantised, quantised
from serving.classifier.text_key import text_key
from serving.errors import ConfigurationError
from tests.factories import FakeEncoder, made_up_examples
from training.config import Split, read_config
from training.fitting.embeddings import EmbeddingStore
from training.fitting.examples import PARTS, prompt_groups, split_parts


def test_prompts_that_nearly_repeat_each_other_are_one_group() -> None:
    examples = made_up_examples(4)
    a, b = np.eye(8, dtype=np.float32)[:2]
    near_a = (a + 0.1 * b) / np.linalg.norm(a + 0.1 * b)
    examples.embedding[:] = [a, b, near_a, (a + 0.2 * b) / np.linalg.norm(a + 0.2 * b)]
    groups = prompt_groups(examples, 0.99)  # cosines to a: .995 and .981; between those two .995
    assert groups[0] == groups[2] == groups[3] != groups[1]


def test_a_group_is_never_divided_and_every_part_gets_its_share() -> None:
    examples = made_up_examples(3000)
    groups = np.arange(3000) // 3
    part = split_parts(examples, groups, Split())
    assert all(len(set(part[groups == g])) == 1 for g in range(1000))
    shares = np.bincount(part) / 3000
    np.testing.assert_allclose(shares, [0.65, 0.20, 0.15], atol=0.05)


def test_a_prompt_stays_in_its_part_when_the_log_grows() -> None:
    examples = made_up_examples(1000)
    grown = split_parts(examples, np.arange(1000), Split())
    early = split_parts(examples.take(np.arange(300)), np.arange(300), Split())
    np.testing.assert_array_equal(early, grown[:300])


def test_a_group_with_a_row_its_source_holds_out_is_test() -> None:
    examples = made_up_examples(100)
    examples.held_out[7] = True
    part = split_parts(examples, np.arange(100) // 10, Split())
    assert (part[:10] == PARTS.index("test")).all()


def test_the_digest_knows_labels_and_not_row_order() -> None:
    examples = made_up_examples(50)
    assert examples.take(np.arange(50)[::-1]).digest() == examples.digest()
    changed = made_up_examples(50)
    changed.acceptable[0, 0] = 1 - changed.acceptable[0, 0]
    assert changed.digest() != examples.digest()


def test_int8_vectors_stay_where_they_were() -> None:
    vectors = made_up_examples(100).embedding
    again = dequantised(*quantised(vectors))
    assert (vectors * again).sum(axis=1).min() > 0.9999


def test_a_text_is_embedded_once_and_found_by_its_key(tmp_path) -> None:  # type: ignore[no-untyped-def]
    encoder = FakeEncoder()
    texts = [f"text {i % 40}" for i in range(400)]
    assert sum(EmbeddingStore(tmp_path, encoder).add(texts)) == 400
    assert encoder.calls == 40
    store = EmbeddingStore(tmp_path, encoder)
    list(store.add([*texts, "new"]))
    assert encoder.calls == 41
    expected = np.stack([encoder.embed(text).vector for text in ("text 3", "new")])
    assert (store.read([text_key("text 3"), text_key("new")]) * expected).sum(axis=1).min() > 0.9999


def test_an_interrupted_run_keeps_the_chunks_it_finished(tmp_path) -> None:  # type: ignore[no-untyped-def]
    encoder = FakeEncoder()
    run = iter(EmbeddingStore(tmp_path, encoder).add(f"text {i}" for i in range(600)))
    next(run)
    run.close()  # type: ignore[attr-defined]
    done = encoder.calls
    list(EmbeddingStore(tmp_path, encoder).add(f"text {i}" for i in range(600)))
    assert (done, encoder.calls) == (256, 600)


def test_a_config_file_is_read_and_its_mistakes_are_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "training.toml"
    path.write_text("[training]\ntargets = [0.9]\n[training.heads]\ntrees = 7\n")
    config = read_config(path)
    assert (config.targets, config.heads.trees) == ((0.9,), 7)
    path.write_text("[heads]\nprior = false\n")
    with pytest.raises(ConfigurationError, match=r"heads: there is only one section, \[training\]"):
        read_config(path)
    path.write_text("[training.heads]\ntreees = 7\n")
    with pytest.raises(ConfigurationError, match=r"training\.heads\.treees"):
        read_config(path)
    path.write_text("[training.split]\nfit = 0.9\n")
    with pytest.raises(ConfigurationError, match="sum to 1"):
        read_config(path)
