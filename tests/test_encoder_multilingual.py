"""The multilingual encoder's graph computes what its source does, on made-up weights; `make soak` has the real ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from training.encoders.multilingual import _grouped, _model

Floats = NDArray[np.float32]


def made_up_weights() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)

    def some(*shape: int) -> Floats:
        return (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)

    weights: dict[str, NDArray[Any]] = {f"q{i + 1}": rng.integers(0, 256, (2, 512)).astype(np.uint8) for i in range(17)}
    weights |= {"lo": some(17), "scale": np.abs(some(17)) / 100, "eps": np.array(1e-12)}
    for order in (2, 3, 5):
        weights |= {f"proj{order}": some(512, 256), f"w1_{order}": some(order * 256, 256)}
        weights |= {f"w2_{order}": some(order * 256, 256)}
        weights |= {f"{name}{order}": some(256) for name in ("proj_b", "ln_g", "ln_b", "b1_", "b2_")}
    weights |= {"ln_g": some(1280), "ln_b": some(1280), "cnn_W": some(1280, 512), "cnn_b": some(512)}
    shapes = {
        "d0": (512, 320),
        "d1": (320, 320),
        "p1": (512, 320),
        "d2": (320, 512),
        "p3": (320, 512),
        "d3": (512, 512),
    }
    return weights | {name: some(*shape) for name, shape in shapes.items()}


def embedded(weights: Mapping[str, NDArray[Any]], ids: Sequence[int]) -> Floats:
    """Token by token, as the formula has it."""

    def normalised(x: Floats, gain: Floats, bias: Floats) -> Floats:
        return (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True) * gain + bias

    def of_neighbours(x: Floats, weight: Floats, bias: Floats, order: int, left: int) -> Floats:
        outside = np.zeros(256, np.float32)
        rows = [
            np.concatenate([x[t + k] if 0 <= t + k < len(x) else outside for k in range(-left, order - left)])
            for t in range(len(x))
        ]
        return np.maximum(np.stack(rows) @ weight + bias, 0) + x

    words = np.stack(
        [weights[f"q{i % 17 + 1}"][i // 17] * weights["scale"][i % 17] + weights["lo"][i % 17] for i in ids]
    )
    joined = {
        name: np.concatenate([weights[f"{name}{order}"] for order in (2, 3, 5)], axis=-1)
        for name in ("proj", "proj_b", "ln_g", "ln_b")
    }
    x = normalised(words @ joined["proj"] + joined["proj_b"], joined["ln_g"], joined["ln_b"])
    found = [words]
    for i, (order, left) in enumerate(((2, 0), (3, 1), (5, 2))):
        branch = x[:, 256 * i : 256 * (i + 1)]
        for layer in (1, 2):
            branch = of_neighbours(branch, weights[f"w{layer}_{order}"], weights[f"b{layer}_{order}"], order, left)
        found.append(branch)
    x = normalised(np.concatenate(found, axis=1), weights["ln_g"], weights["ln_b"])
    pooled = (x @ weights["cnn_W"] + weights["cnn_b"]).sum(0) / np.sqrt(len(ids))
    first = np.maximum(pooled @ weights["d0"], 0)
    second = np.maximum(pooled @ weights["p1"] + first @ weights["d1"], 0)
    z = np.tanh(second @ weights["p3"] + np.maximum(second @ weights["d2"], 0) @ weights["d3"])
    return z / np.linalg.norm(z)


@pytest.mark.parametrize("ids", [(1, 2), (1, 33, 2), (1, 0, 17, 5, 5, 30, 16, 2)])
def test_the_graph_computes_the_formula(ids: Sequence[int]) -> None:
    weights = made_up_weights()
    (embedding,) = onnxruntime.InferenceSession(_model(weights)).run(None, {"input_ids": np.array([ids])})
    np.testing.assert_allclose(embedding, embedded(weights, ids), atol=1e-5)


def test_the_same_weights_give_the_same_bytes() -> None:
    assert _model(made_up_weights()) == _model(made_up_weights())


def test_the_fields_of_a_message_are_read_by_their_numbers() -> None:
    # Field 1 twice, "a" and "bc"; field 2 a float32 of 1.0; field 3 the integer 300 in two bytes, passed over.
    message = b"\x0a\x01a" + b"\x0a\x02bc" + b"\x15\x00\x00\x80\x3f" + b"\x18\xac\x02"
    assert dict(_grouped(message)) == {1: [b"a", b"bc"], 2: [b"\x00\x00\x80\x3f"]}
