"""Nodes and constants of an ONNX graph, or of the body of a Scan, under construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


@dataclass
class Names:
    """Names that are unique in a whole model, its subgraphs included."""

    used: set[str] = field(default_factory=set)

    def new(self, wanted: str) -> str:
        """`wanted`, or that with a number."""
        name, count = wanted, 1
        while name in self.used:
            count += 1
            name = f"{wanted}_{count}"
        self.used.add(name)
        return name


@dataclass
class Body:
    """What a graph computes.

    Args:
        names: of the model.
        dtype: of its numbers, `float32` or `float64`.
    """

    names: Names
    dtype: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def op(self, kind: str, inputs: Sequence[str], name: str = "", count: int = 1, **attributes: Any) -> str:
        """Add a node; the name of its (first) result."""
        outputs = [self.names.new(name or kind.lower()) for _ in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=f"node_{outputs[0]}", **attributes))
        return outputs[0]

    def constant(self, array: Array, name: str = "constant") -> str:
        """Add a constant as it is."""
        unique = self.names.new(name)
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), unique))
        return unique

    def number(self, value: float | Array, name: str = "number") -> str:
        """Add numbers in the dtype of the graph."""
        return self.constant(np.asarray(value, dtype=self.dtype).reshape(np.shape(value)), name)

    def integers(self, *values: int) -> str:
        """Add a vector of int64."""
        return self.constant(np.array(values, dtype=np.int64), "shape")
