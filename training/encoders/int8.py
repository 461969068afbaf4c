"""Dense layers and tables of an exported ONNX graph in int8: how their weights and values become bytes.

Why a step for each token and not one for all, with figures: docs/decisions/2026-11-26-encoders.md.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import EncoderError
from training.encoders.graph import Graph

Floats = NDArray[np.float32]

_TINY: Final = np.float32(1e-12)  # instead of a step of 0, where all values are equal
_TABLE_ROWS: Final = 1_000  # smaller tables (positions, token types) are not worth it
_FLOAT: Final = 1  # of onnx.TensorProto


def without_overflow(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """A weight (inputs, outputs) as int8 and a scale (outputs,), just coarse enough for adding products in 16 bits.

    x86 without VNNI sums two neighbouring uint8 × int8 products in an int16 that saturates. With two neighbours
    of one sign summing to at most 128, the largest sum is 255 × 128 = 32,640 and none does. Halving all
    weights (onnxruntime's reduce_range) also prevents it, at five times the error.
    """
    reach = np.abs(weight).max(axis=0)
    for side in (weight.clip(min=0), -weight.clip(max=0)):
        reach = np.maximum(reach, (side[0::2] + side[1::2]).max(axis=0))
    scale = np.maximum(reach / np.float32(127), _TINY)  # rounding may add half a step to each of the two: 128
    return np.rint(weight / scale).astype(np.int8), scale


def compact_graph(exported: Any, *, int8: bool) -> Graph:
    """An exported ModelProto, transposed weights folded, without names of files; in int8 if asked for.

    Dense layers are those matrix products of (1, tokens, inputs) values with a constant weight. Raises
    EncoderError when int8 is asked for and there is none.
    """
    from onnx import numpy_helper

    source = exported.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.initializer}
    sequences = {value.name for value in source.value_info if len(value.type.tensor_type.shape.dim) == 3}
    rewriter = _Rewriter(Graph(), constants)
    dense_layers = 0
    for node in source.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        table = constants.get(node.input[0]) if node.op_type == "Gather" else None
        if node.op_type == "Transpose" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]].transpose(*_permutation(node))
        elif int8 and weight is not None and weight.ndim == 2 and len(weight) % 2 == 0 and node.input[0] in sequences:
            rewriter.dense(node.input[0], node.input[1], node.output[0])
            dense_layers += 1
        elif int8 and table is not None and table.ndim == 2 and len(table) >= _TABLE_ROWS:
            rewriter.table(node.input[0], node.input[1], node.output[0])
        else:
            rewriter.keep(node)
    if int8 and not dense_layers:
        raise EncoderError("the exported graph has no dense layer to quantise; export it with --precision fp32")
    return rewriter.graph


def _permutation(node: Any) -> list[int]:
    """Of a Transpose; reversed when it does not say, as ONNX has it."""
    return [axis for attribute in node.attribute if attribute.name == "perm" for axis in attribute.ints]


class _Rewriter:
    """Adds the nodes of another graph, or int8 ones in their place. What is shared there is shared here."""

    def __init__(self, graph: Graph, constants: dict[str, NDArray[Any]]) -> None:
        self.graph = graph
        self._source = constants
        self._kept: set[str] = set()
        self._weights: dict[str, tuple[str, str, str]] = {}
        self._values: dict[str, tuple[str, str, str]] = {}

    def keep(self, node: Any) -> None:
        """The node as it is, with the constants it reads."""
        for name in node.input:
            if name in self._source and name not in self._kept:
                self._kept.add(name)
                self.graph.constant(self._source[name], name)
        for field in ("metadata_props", "doc_string"):  # they name the files of whoever exports
            node.ClearField(field)
        self.graph.keep(node)

    def dense(self, x: str, weight: str, output: str) -> None:
        """x @ weight, where x = low + step × levels for each token, so that one far token coarsens no other."""
        graph = self.graph
        levels, step, low = self._quantised(x)
        int8, scale, sums = self._weight(weight)
        product = graph.apply("com.microsoft.MatMulIntegerToFloat", levels, int8, self._shared("one", 1.0), scale)
        offset = graph.apply("Mul", low, sums)
        graph.apply("Add", graph.apply("Mul", product, step), offset, output=output)

    def table(self, name: str, indices: str, output: str) -> None:
        """Rows of a table that is kept as int8 with a scale for each row."""
        table = self._source[name]
        scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / np.float32(127), _TINY)
        rows = self.graph.apply("Gather", self.graph.constant(np.rint(table / scale).astype(np.int8)), indices)
        scales = self.graph.apply("Gather", self.graph.constant(scale), indices)
        self.graph.apply("Mul", self.graph.apply("Cast", rows, to=_FLOAT), scales, output=output)

    def _quantised(self, x: str) -> tuple[str, str, str]:
        """`x` (1, tokens, inputs) as uint8, with step and least value of each token (1, tokens, 1)."""
        if x not in self._values:
            graph = self.graph
            last = self._shared("last_axis", [-1])
            low = graph.apply("ReduceMin", x, last, keepdims=1)
            span = graph.apply("Sub", graph.apply("ReduceMax", x, last, keepdims=1), low)
            step = graph.apply("Mul", span, self._shared("levels", 1 / 255))
            step = graph.apply("Max", step, self._shared("tiny", float(_TINY)))
            flat = graph.apply("Reshape", step, last)
            levels = graph.apply("QuantizeLinear", graph.apply("Sub", x, low), flat, axis=1)
            self._values[x] = levels, step, low
        return self._values[x]

    def _weight(self, name: str) -> tuple[str, str, str]:
        """A weight as int8, its scale, and the sums of its columns."""
        if name not in self._weights:
            int8, scale = without_overflow(self._source[name])
            sums = int8.sum(axis=0, dtype=np.int32).astype(np.float32) * scale
            self._weights[name] = self.graph.constant(int8), self.graph.constant(scale), self.graph.constant(sums)
        return self._weights[name]

    def _shared(self, name: str, value: float | list[int]) -> str:
        """A small constant, once for the whole graph: a list is int64, a number float32."""
        name = f"tierwise_{name}"
        if name not in self._kept:
            self._kept.add(name)
            self.graph.constant(np.array(value, np.int64 if isinstance(value, list) else np.float32), name)
        return name
