"""What of exporting an encoder needs no torch: the graph in int8, the figures of parity, and what is said without it.

`make soak` exports real models.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from serving.errors import EncoderError
from tests.factories import IDENTITY
from training.cli import tierwise
from training.encoders.export import Exported
from training.encoders.int8 import compact_graph
from training.encoders.parity import Parity, check_parity, parity
from training.report import exported_json, exported_text

WEIGHT = np.array([[1, 0], [0, 1], [1, -1], [0.5, 2]], np.float32)  # (inputs, outputs)


def exported_model(*, transposed: bool = False) -> onnx.ModelProto:
    """As torch exports it: rows of a table of 1,000, times a weight, in the mean over the tokens."""
    table = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    table[7] = [3, 3, 3, 3]  # a token whose values are all equal has no step
    weight = helper.make_node("Transpose", ["stored"], ["weight"], perm=[1, 0])
    nodes = [
        *([weight] if transposed else []),
        helper.make_node("Gather", ["table", "input_ids"], ["x"], doc_string="/home/someone/model.py"),
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
        helper.make_node("ReduceMean", ["y", "axes"], ["sentence_embedding"], keepdims=0),
    ]
    stored = {"stored": WEIGHT.T} if transposed else {"weight": WEIGHT}
    constants = {"table": table, "axes": np.array([0, 1]), **stored}
    graph = helper.make_graph(
        nodes,
        "exported",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])],
        [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
        value_info=[helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "tokens", 4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def run(model: bytes, *ids: int) -> Any:
    (embedding,) = onnxruntime.InferenceSession(model).run(None, {"input_ids": np.array([ids])})
    return embedding


def compact(*, int8: bool, transposed: bool = False) -> bytes:
    graph = compact_graph(exported_model(transposed=transposed), int8=int8)
    return graph.serialise("sentence_embedding", 2, opset=20, output="sentence_embedding")


# The graph


@pytest.mark.parametrize("transposed", [False, True])
def test_a_graph_in_int8_gives_nearly_what_it_gave(transposed: bool) -> None:
    before, after = exported_model(transposed=transposed).SerializeToString(), compact(int8=True, transposed=transposed)
    for ids in ((1,), (2, 3), (999, 0, 500, 4)):
        np.testing.assert_allclose(run(after, *ids), run(before, *ids), atol=0.05)


def test_a_token_of_equal_values_is_no_division_by_zero() -> None:
    # 3 × (1 + 0 + 1 + 0.5) and 3 × (0 + 1 - 1 + 2)
    np.testing.assert_allclose(run(compact(int8=True), 7), [7.5, 6], atol=0.1)


def test_a_token_keeps_its_steps_beside_one_that_reaches_further() -> None:
    # The mean of a token's output and another's is made of what each gives alone: the far one coarsens nothing.
    model = compact(int8=True)
    np.testing.assert_allclose(run(model, 1, 7), (run(model, 1) + run(model, 7)) / 2, rtol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_graph_in_fp32_is_as_it_was_without_transposing_its_weights(transposed: bool) -> None:
    model = compact(int8=False, transposed=transposed)
    assert run(model, 1, 2).tolist() == run(exported_model().SerializeToString(), 1, 2).tolist()
    assert [node.op_type for node in onnx.load_from_string(model).graph.node] == ["Gather", "MatMul", "ReduceMean"]


@pytest.mark.parametrize("int8", [False, True])
def test_a_graph_does_not_name_the_files_of_whoever_exports(int8: bool) -> None:
    assert b"someone" not in compact(int8=int8)


def test_dense_layers_and_the_table_are_what_is_in_int8() -> None:
    tensors = onnx.load_from_string(compact(int8=True)).graph.initializer
    assert sorted(tuple(tensor.dims) for tensor in tensors if tensor.data_type == TensorProto.INT8) == [
        (4, 2),
        (1000, 4),
    ]


def test_a_graph_without_dense_layers_is_refused_in_int8() -> None:
    model = exported_model()
    del model.graph.value_info[:]
    with pytest.raises(EncoderError, match="no dense layer to quantise; export it with --precision fp32"):
        compact_graph(model, int8=True)


# Parity


def test_parity_is_of_cosines_and_does_not_see_lengths() -> None:
    ours = np.array([[2, 0], [0, 3], [3, 4]], np.float32)
    theirs = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    # Cosines 1, 1 and 0.6. Pairs of ours 0, 0.6, 0.8 and of theirs 0, 1, 0: covariance 0.4 / 3, variances
    # 0.3467 / 3 and 0.6667 / 3, so r = 0.1333 / √(0.3467 × 0.6667) = 0.2774.
    found = parity(ours, theirs)
    assert found.texts == 3
    assert (found.mean, found.least) == pytest.approx((2.6 / 3, 0.6))
    assert found.pairs == pytest.approx(0.2774, abs=1e-4)


@pytest.mark.parametrize(
    "found",
    [
        Parity(24, 0.989, 0.985, 0.995),
        Parity(24, 0.995, 0.979, 0.995),
        Parity(24, 0.995, 0.985, 0.989),
        Parity(24, float("nan"), float("nan"), float("nan")),
    ],
)
def test_an_encoder_below_a_bar_is_refused_with_its_figures(found: Parity) -> None:
    with pytest.raises(
        EncoderError, match=rf"so it was not written: cosine mean {found.mean:.4f}, .*; --precision fp32"
    ):
        check_parity(found, "int8")


def test_fp32_has_to_be_the_same() -> None:
    check_parity(Parity(24, 0.9999, 0.9999, 0.9999), "fp32")
    check_parity(Parity(24, 0.991, 0.981, 0.991), "int8")
    with pytest.raises(EncoderError, match=r"where fp32 needs 0\.9999, 0\.9999 and 0\.9999$"):
        check_parity(Parity(24, 0.99995, 0.9998, 0.99995), "fp32")


# The command


@pytest.mark.parametrize("library", ["sentence_transformers", "torch", "onnxscript", "onnx"])
def test_without_a_library_an_export_says_what_to_install(
    state: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sentence_transformers", "torch", "onnxscript"):  # an environment with the extra lacks none of them
        monkeypatch.setitem(sys.modules, name, sys.modules["json"])
    monkeypatch.setitem(sys.modules, library, None)
    result = CliRunner().invoke(tierwise, ["encoder", "export", "some/model"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert (
        result.stderr == f"Error: exporting an encoder needs {library!r}; run: "
        "pip install 'tierwise[training,encoders]'\n"
    )
    assert not (state / "encoders").exists()


def test_an_export_replaces_nothing_but_an_encoder(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = CliRunner().invoke(tierwise, ["encoder", "export", "some/model", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: '{tmp_path}' is there and is no encoder's folder; give one that is new or holds an encoder\n"
    )
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_export_in_another_precision_is_no_command() -> None:
    result = CliRunner().invoke(tierwise, ["encoder", "export", "some/model", "--precision", "int4"])
    assert result.exit_code == 2
    assert "'int4' is not one of 'int8', 'fp32'" in result.stderr


def test_an_export_tells_its_figures_and_the_setting_to_train_with_it(tmp_path: Path) -> None:
    exported = Exported(IDENTITY, tmp_path, IDENTITY.digest[:12], "int8", Parity(24, 0.99797, 0.98842, 0.99828))
    text = exported_text(exported)
    assert "against the model itself on 24 texts: cosine 0.9980 in the mean, 0.9884 at least; " in text
    assert f'encoder = "{IDENTITY.digest[:12]}" in [training]' in text
    told = json.loads(json.dumps(exported_json(exported)))
    assert told["parity"] == {"texts": 24, "mean": 0.99797, "least": 0.98842, "pairs": 0.99828}
    assert (told["digest"], told["encoder"]["name"]) == (IDENTITY.digest, "fake")
