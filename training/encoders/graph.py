"""An ONNX graph under construction, from input_ids to the embedding of one text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


class Graph:
    """Nodes and constants. Values are named in the order they are added, for equal bytes."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy_helper = helper, numpy_helper
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, value: ArrayLike, name: str | None = None) -> str:
        """Add a constant and name it."""
        name = name or f"constant_{len(self._constants)}"
        self._constants.append(self._numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def apply(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node of one output and name it. `operator` may carry a domain: com.microsoft.Gelu."""
        return self._append(operator, inputs, [output or f"value_{len(self._nodes)}"], attributes)[0]

    def quantise(self, x: str) -> tuple[str, str, str]:
        """`x` as uint8, its step and its zero point, from the range of all its values."""
        names = [f"{part}_{len(self._nodes)}" for part in ("levels", "step", "zero")]
        levels, step, zero = self._append("DynamicQuantizeLinear", (x,), names, {})
        return levels, step, zero

    def keep(self, node: Any) -> None:
        """Add a node of another graph as it is."""
        self._nodes.append(node)

    def _append(
        self, operator: str, inputs: Sequence[str], outputs: list[str], attributes: dict[str, Any]
    ) -> list[str]:
        domain, _, kind = operator.rpartition(".")
        self._nodes.append(self._helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
        return outputs

    def serialise(self, name: str, dimension: int, *, opset: int = 18, output: str = "embedding") -> bytes:
        """The model, from input_ids int64 (1, tokens) to an embedding float32 (d,), the value called `output`."""
        from onnx import TensorProto

        ids = self._helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])
        embedding = self._helper.make_tensor_value_info(output, TensorProto.FLOAT, [dimension])
        model = self._helper.make_model(
            self._helper.make_graph(self._nodes, name, [ids], [embedding], self._constants),
            opset_imports=[self._helper.make_opsetid("", opset), self._helper.make_opsetid("com.microsoft", 1)],
            ir_version=9,
            producer_name="tierwise",
        )
        content: bytes = model.SerializeToString(deterministic=True)
        return content
