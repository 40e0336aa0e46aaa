"""The ONNX model of an artefact: written with the net's output alone, run with every neuron layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper
from torch import Tensor

from spikecore.errors import ConversionError, PluginUnavailable

INPUT, OUTPUT = "x", "y"
OPERATIONS = frozenset(
    (
        *("Identity", "Constant", "Cast", "Reshape", "Concat", "Slice", "Transpose", "Gemm", "MatMul", "Conv"),
        *("BatchNormalization", "AveragePool", "MaxPool", "Relu", "Add", "Sub", "Mul", "Div", "Reciprocal", "Neg"),
        *("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "And", "Or", "Not", "Exp", "Log", "Sqrt"),
        *("Tanh", "Sigmoid", "Abs", "Sign", "Floor", "Round", "Sin", "Cos", "Atan", "Erf", "Min", "Max", "Clip"),
        *("Where", "Unsqueeze", "Squeeze", "Shape"),
    )
)
"""What a converted net consists of; others could allocate or read whatever a file says."""
MAX_SHAPE = 16
"""A constant of at most so many integers may be a shape."""


def layer_output(index: int) -> str:
    """The name of a neuron layer's result."""
    return f"layer{index}"


def only_output(data: bytes, num_layers: int) -> bytes:
    """The model without the neuron layers among its outputs; their results keep their names.

    Raises:
        ConversionError: the exporter wrote something that a chip does not take.
    """
    model = ModelProto()
    model.ParseFromString(data)
    kept = [output for output in model.graph.output if output.name == OUTPUT]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    model.producer_version = ""
    for node in model.graph.node:
        node.doc_string = ""  # places in Python files
    unknown = sorted({node.op_type for node in model.graph.node} - OPERATIONS)
    if unknown:
        raise ConversionError(f"torch's exporter wrote {', '.join(unknown)}, which this plugin does not know")
    named = {name for node in model.graph.node for name in node.output}
    missing = [layer_output(index) for index in range(num_layers) if layer_output(index) not in named]
    if missing or not kept:
        raise ConversionError(f"torch's exporter wrote no results {', '.join(missing) or OUTPUT}")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def checked_model(data: bytes, where: str, max_bytes: int) -> ModelProto:
    """A model of this plugin.

    Raises:
        ConversionError: it is damaged, refers to other files, or holds what this plugin does not write.
    """
    model = ModelProto()
    try:
        model.ParseFromString(data)
        _check_graph(model.graph, where, max_bytes)
        onnx.checker.check_model(model, full_check=False)
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise ConversionError(f"{where}: not an ONNX model, or a damaged one: {error}") from error
    return model


def _check_graph(graph: onnx.GraphProto, where: str, max_bytes: int) -> None:
    constants = list(graph.initializer)
    for node in graph.node:
        if node.op_type not in OPERATIONS or node.domain:
            raise ConversionError(f"{where}: this plugin writes no {node.domain}:{node.op_type}: export it again")
        for attribute in node.attribute:
            if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                raise ConversionError(f"{where}: it has graphs inside {node.op_type}, an unrolled net has none")
            if attribute.type == onnx.AttributeProto.TENSOR:
                constants.append(attribute.t)
    for tensor in constants:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise ConversionError(f"{where}: the constant {tensor.name!r} lies in another file")
        if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) * 8 > max_bytes:
            raise ConversionError(f"{where}: the constant {tensor.name!r} has the shape {list(tensor.dims)}")


def run_model(model: ModelProto, x: Tensor, num_layers: int) -> tuple[Tensor, ...]:
    """The output of the net, then that of every neuron layer, each `[T * B, ...]`, in onnxruntime.

    Raises:
        PluginUnavailable: onnxruntime is missing.
        ConversionError: onnxruntime cannot run it.
    """
    element = model.graph.input[0].type.tensor_type.elem_type
    named = {name for node in model.graph.node for name in node.output}
    wanted = [OUTPUT, *(layer_output(index) for index in range(num_layers))]
    for name in wanted[1:]:
        if name not in named:
            raise ConversionError(f"the model has no result {name!r}, which its manifest promises: export it again")
        model.graph.output.append(helper.make_tensor_value_info(name, element, None))
    values = _ran(model, wanted, x.numpy())
    return tuple(torch.from_numpy(np.array(value)) for value in values)


def _ran(model: ModelProto, wanted: Sequence[str], x: Any) -> list[Any]:
    try:
        import onnxruntime
    except ImportError as error:
        raise PluginUnavailable(f"onnxruntime is missing ({error}): pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # sums do not depend on the number of threads
    options.log_severity_level = 3
    # Fused nodes would be rounded otherwise.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values: list[Any] = session.run(list(wanted), {INPUT: x})
    except Exception as error:  # onnxruntime's errors have no common base that it exports
        raise ConversionError(f"onnxruntime cannot run the model: {error}") from error
    return values
