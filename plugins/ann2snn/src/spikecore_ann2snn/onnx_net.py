"""`OnnxNet`: an ONNX graph as a net of torch's layers, one per node, with the names of its nodes.

Batches come first: a graph that was exported for one batch size takes any. Numbers that it computes from shapes are
computed from the shapes of its inputs, in Python, so that `trace_net` follows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.errors import ConversionError
from spikecore_ann2snn.onnx_file import attributes_of, checked, ranks_of, sizes_of, tensor_of
from spikecore_ann2snn.onnx_operators import LAYERS, OPERATIONS, SIZES, Op, Unsupported, batch_axis_after


@dataclass(frozen=True)
class _Step:
    """One call: `module` is the name of a submodule, or None where `function` is called."""

    module: str | None
    function: Callable[..., Any] | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class OnnxNet(nn.Module):
    """The net in an ONNX model; takes a batch `[B, ...]`.

    Args:
        content: a serialized model without external data.

    Raises:
        ConversionError: the model is damaged, has several inputs or outputs, or operators without a counterpart.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__()
        model = checked(content)
        graph = model.graph
        self._constants: dict[str, Tensor] = {proto.name: tensor_of(proto) for proto in graph.initializer}
        inputs = [info for info in graph.input if info.name not in self._constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ConversionError(
                f"the ONNX model has {len(inputs)} inputs and {len(graph.output)} outputs; expected one of each"
            )
        self._input, self._output = inputs[0].name, graph.output[0].name
        self._version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
        self._ranks, self._known_sizes = ranks_of(model), sizes_of(model)
        self._shape_of: dict[str, str] = {}  # output of a Shape → the value whose shape it is
        if self._ranks.get(self._input, 0) < 1:
            raise ConversionError(f"the number of axes of input {self._input!r} is not known: export it with a shape")
        self._read = {name for node in graph.node for name in node.input} | {self._output}
        first = inputs[0].type.tensor_type.shape.dim[0]
        self._batch = first.dim_value if first.HasField("dim_value") else None
        self._sizes: set[str] = set()
        self._batch_axes: dict[str, int] = {self._input: 0}
        self._stored: dict[str, str] = {}
        self._taken: set[str] = set()
        self._steps: list[_Step] = []
        problems: list[str] = []
        for index, node in enumerate(graph.node):
            op = self._op(node, index)
            try:
                self._add(op)
            except Unsupported as error:
                problems.append(f"  {op.name} ({op.type}): {error}")
                self._ranks.update({name: self._ranks.get(name, -1) for name in op.outputs})
        if problems:
            lines = "\n".join(problems)
            raise ConversionError(
                f"{len(problems)} of {len(graph.node)} operators of the ONNX model have no counterpart:\n{lines}"
            )

    def _op(self, node: Any, index: int) -> Op:
        known = [self._constants.get(name) for name in node.input]
        name = re.sub(r"[^0-9A-Za-z_]", "_", node.name).strip("_") or f"{node.op_type.lower()}_{index}"
        return Op(
            node.op_type,
            name if not name[0].isdigit() else f"n{name}",
            node.domain,
            attributes_of(node),
            tuple(node.input),
            tuple(node.output),
            tuple(known),
            tuple(self._ranks.get(name) for name in node.input),
            self._batch,
            next((self._batch_axes[name] for name in node.input if name in self._batch_axes), 0),
            self._version,
        )

    def _add(self, op: Op) -> None:
        """Append the step of a node, or compute it now where it depends on constants alone."""
        if op.domain not in ("", "ai.onnx"):
            raise Unsupported(f"the operator is of domain {op.domain}")
        if op.type == "Constant":
            self._constants[op.outputs[0]] = _constant(op)
            return
        if op.type == "Shape" or any(name in self._sizes for name in op.inputs):
            self._add_size(op)
            return
        is_constant = bool(op.inputs) and all(
            value is not None for name, value in zip(op.inputs, op.known, strict=True) if name
        )
        if op.type in LAYERS and not is_constant:
            made = LAYERS[op.type](op)
            module = made if isinstance(made, nn.Module) else None
            function = None if module is not None else made
            left = op.inputs[: 1 if module is not None else None]
        elif op.type in OPERATIONS:
            module, function, left = None, OPERATIONS[op.type](op), op.inputs
        else:
            raise Unsupported("unknown here")
        if is_constant:
            assert function is not None
            with torch.no_grad():
                left = [name for name in op.inputs if name and name not in op.consumed()]
                result = function(*(self._constants[name] for name in left))
            results = result if isinstance(result, tuple) else (result,)
            self._constants.update(zip(op.outputs, results, strict=False))  # outputs may be left out
            return
        self._batch_axes.update(dict.fromkeys(op.outputs, batch_axis_after(op)))
        path, outputs = None, op.outputs
        if module is not None:
            if used := [name for name in outputs[1:] if name in self._read]:
                raise Unsupported(f"its further output {used[0]!r} is read, and has no counterpart")
            outputs = outputs[:1]
            path = self._free(op.name)
            self.add_module(path, module)
        names = tuple(name for name in left if name and name not in op.consumed())
        self._steps.append(_Step(path, function, tuple(map(self._value, names)), outputs))

    def _add_size(self, op: Op) -> None:
        """A step on numbers that come from shapes; the result is a tuple of them, or one."""
        if op.type == "Shape":
            self._shape_of[op.outputs[0]] = op.inputs[0]
        sizes = self._static_sizes(op)
        if sizes is not None:
            self._constants[op.outputs[0]] = sizes
            return
        if op.type in SIZES:
            function = SIZES[op.type](op)
            self._sizes.update(op.outputs)
            # Constants among its inputs are numbers too.
            names = tuple(name for name in op.inputs if name and self._constants.get(name) is None)
        elif op.type in OPERATIONS:  # such as Reshape: a tensor comes out
            function = OPERATIONS[op.type](op)
            self._batch_axes.update(dict.fromkeys(op.outputs, batch_axis_after(op)))
            names = tuple(self._value(name) for name in op.inputs if name and name not in op.consumed())
        else:
            raise Unsupported("of numbers that are computed from shapes is not known here")
        self._steps.append(_Step(None, function, names, op.outputs))

    def _static_sizes(self, op: Op) -> Tensor | None:
        """What a node picks from a shape, where that is fixed in the model and is not the batch."""
        value = self._shape_of.get(op.inputs[0])
        if op.type not in ("Gather", "Slice") or value is None or any(part is None for part in op.known[1:]):
            return None
        known = self._known_sizes.get(value, [])
        index = op.constant(1, "index") if op.type == "Gather" else SIZES["Slice"](op)(torch.arange(len(known)))
        places = [int(place) % max(len(known), 1) for place in index.reshape(-1)]
        sizes = [known[place] for place in places if place < len(known)]
        is_fixed = len(sizes) == len(places) and None not in sizes
        if not is_fixed or self._batch_axes.get(value, 0) in places:
            return None
        return torch.tensor(sizes).reshape(index.shape)

    def _value(self, name: str) -> str:
        """The name under which a step finds its input; constants become parameters or buffers."""
        if name not in self._constants:
            return name
        if name not in self._stored:
            value, path = self._constants[name], self._free(re.sub(r"[^0-9A-Za-z_]", "_", name) or "constant")
            if value.is_floating_point():
                self.register_parameter(path, nn.Parameter(value))
            else:
                self.register_buffer(path, value)
            self._stored[name] = path
        return name

    def _free(self, name: str) -> str:
        own = name if not hasattr(self, name) else f"{name}_"
        while own in self._taken:
            own += "_"
        self._taken.add(own)
        return own

    def forward(self, x: Tensor) -> Tensor:
        """`[B, ...]` → the model's output."""
        values: dict[str, Any] = {self._input: x}
        values.update({name: getattr(self, path) for name, path in self._stored.items()})
        for step in self._steps:
            called = self.get_submodule(step.module) if step.module is not None else step.function
            assert called is not None
            result = called(*(values[name] for name in step.inputs))
            if len(step.outputs) == 1:
                values[step.outputs[0]] = result
            else:
                for index, name in enumerate(step.outputs):
                    values[name] = result[index]
        output: Tensor = values[self._output]
        return output


def _constant(op: Op) -> Tensor:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if name in op.attributes:
            value = op.attributes[name]
            return value if isinstance(value, Tensor) else torch.tensor(value)
    raise Unsupported(f"a constant of {', '.join(op.attributes)}")
