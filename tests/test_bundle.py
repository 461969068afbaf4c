"""A bundle comes back from disk as it went, and nothing else is taken for one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from serving.chat import read_conversation
from serving.classifier.bundle import Bundle, read_bundle, write_bundle
from serving.classifier.classifier import Classifier
from serving.classifier.encoder import Embedding, EmbeddingMemo
from serving.errors import BundleError, EncoderError
from tests.factories import FakeEncoder, made_up_examples, trained_bundle
from training.fitting.router import without_encoder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    folder = tmp_path_factory.mktemp("bundles") / "one"
    return folder, trained_bundle(folder)


@pytest.fixture
def folder(original: tuple[Path, Bundle], tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(original[0], tmp_path / "bundle"))


def classifier(bundle: Bundle) -> Classifier:
    return Classifier(bundle, EmbeddingMemo(FakeEncoder(), 10))


def test_a_reloaded_bundle_predicts_exactly_what_it_predicted(folder: Path, original: tuple[Path, Bundle]) -> None:
    examples = made_up_examples(50, seed=9)
    first, again = (b.predict(examples.embedding, examples.features) for b in (original[1], read_bundle(folder)))
    np.testing.assert_array_equal(first.proba, again.proba)
    np.testing.assert_array_equal(first.output_tokens, again.output_tokens)


def test_a_bundle_from_before_tiers_had_capabilities_is_read(folder: Path) -> None:
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    for tier in manifest["tiers"]:
        for name in ("context_window", "tools", "vision", "json_mode"):
            del tier[name]
    path.write_text(json.dumps(manifest))
    assert [tier.vision for tier in read_bundle(folder).tiers] == [None, None, None]


def test_a_trained_bundle_tells_easy_from_hard(original: tuple[Path, Bundle]) -> None:
    easy = classifier(original[1]).predict(read_conversation(prompt="Question 1: prove it carefully, "))
    hard = classifier(original[1]).predict(read_conversation(prompt="Question 1: " + "prove it carefully, " * 20))
    assert easy.proba[0] > 0.8 > 0.55 > hard.proba[0]
    assert hard.output_tokens[0] > 1.5 * easy.output_tokens[0]


def test_golden_predictions_hold_where_they_were_made(original: tuple[Path, Bundle]) -> None:
    assert len(original[1].golden) >= 8
    classifier(original[1]).check_golden()


def test_golden_predictions_that_differ_are_refused(folder: Path) -> None:
    bundle = read_bundle(folder)
    off = tuple(row.model_copy(update={"proba": tuple(p + 0.04 for p in row.proba)}) for row in bundle.golden)
    changed = write_bundle(folder, Bundle(**{**vars(bundle), "golden": off}))
    with pytest.raises(BundleError, match=r"off by 0\.040 on average"):
        classifier(changed).check_golden()


@pytest.mark.parametrize("name", ["heads.npz", "calibration.npz", "golden.jsonl"])
def test_a_changed_file_is_refused_by_name(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        read_bundle(folder)


def test_a_missing_file_is_refused_by_name(folder: Path) -> None:
    (folder / "heads.npz").unlink()
    with pytest.raises(BundleError, match=r"heads\.npz"):
        read_bundle(folder)


def test_no_bundle_at_all_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="tierwise train"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 1}, "format"),
        ({"surprise": 1}, "surprise"),
        ({"feature_names": ["x"]}, "other features"),
        ({"tiers": []}, "heads"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(folder: Path, change: dict[str, object], reason: str) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(manifest | change))
    with pytest.raises(BundleError, match=reason):
        read_bundle(folder)


def test_a_pickle_in_the_arrays_is_never_loaded(folder: Path) -> None:
    np.savez(folder / "heads.npz", **{"fallback.slope": np.array([{"a": 1}], dtype=object)})
    manifest = json.loads((folder / "bundle.json").read_text())
    import hashlib

    manifest["files"]["heads.npz"] = hashlib.sha256((folder / "heads.npz").read_bytes()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="cannot be read as arrays"):
        read_bundle(folder)


def test_another_encoder_is_refused(original: tuple[Path, Bundle]) -> None:
    class Other(FakeEncoder):
        identity = FakeEncoder.identity.model_copy(update={"revision": "2"})

    with pytest.raises(BundleError, match="another encoder"):
        Classifier(original[1], EmbeddingMemo(Other(), 10))


def test_an_encoder_that_fails_leaves_the_features(original: tuple[Path, Bundle]) -> None:
    class Broken(FakeEncoder):
        def embed(self, text: str) -> Embedding:  # noqa: ARG002
            raise EncoderError("out of memory")

    prediction = Classifier(original[1], EmbeddingMemo(Broken(), 10)).predict(read_conversation(prompt="hello"))
    assert prediction.fallback
    assert ((prediction.proba > 0) & (prediction.proba < 1)).all()


def test_the_features_alone_make_a_bundle_of_their_own(original: tuple[Path, Bundle], tmp_path: Path) -> None:
    alone = write_bundle(tmp_path / "fallback", without_encoder(original[1]))
    prediction = Classifier(alone, None).predict(read_conversation(prompt="Question 1: prove it carefully, "))
    assert prediction.fallback
    assert prediction.proba[0] > 0.8


def test_a_repeated_prompt_does_not_run_the_encoder_again(original: tuple[Path, Bundle]) -> None:
    encoder = FakeEncoder()
    once = Classifier(original[1], EmbeddingMemo(encoder, 10))
    conversation = read_conversation(prompt="hello")
    assert not once.remembers(conversation)
    once.predict(conversation)
    assert once.remembers(conversation)
    once.predict(conversation)
    assert encoder.calls == 1
