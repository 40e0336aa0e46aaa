"""Runs a model in onnxruntime. A file is a stranger's: sizes are looked at, nothing outside it is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper
from torch import Tensor

from spikecore.documents import parse_json
from spikecore.errors import ConversionError, PluginUnavailable, ShapeError
from spikecore_deploy_onnx.forms import FORM, INPUT, KEY, OUTPUT
from spikecore_deploy_onnx.language import SIMPLE

MAX_AXES, MAX_VALUES = 16, 2**31
"""Of a shape that a graph holds."""
OPERATIONS = {
    *SIMPLE.values(),
    *("Identity", "Shape", "Concat", "Reshape", "Expand", "Scan", "Gather", "Unsqueeze"),
    *("Gemm", "MatMul", "Transpose", "Conv", "BatchNormalization", "DequantizeLinear", "Relu"),
    *("AveragePool", "MaxPool"),
}
"""What this plugin writes; other operations could allocate or read whatever a file says."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model of ours.

    Args:
        model: the model.
        kind: its form.
        layers: neuron in the net → result in the model.
        states: of the form `step`: input, output, first value and shape of each state.
    """

    model: ModelProto
    kind: str
    layers: dict[str, str]
    states: list[dict[str, Any]]


def read_model(path: Path, max_bytes: int) -> Loaded:
    """A model that this plugin wrote.

    Raises:
        ConversionError: the file is missing, damaged, too large, refers to other files, or is not ours.
    """
    if not path.is_file():
        raise ConversionError(f"{path}: expected an .onnx file, found {'a directory' if path.is_dir() else 'nothing'}")
    size = path.stat().st_size
    if size > max_bytes:
        raise ConversionError(f"{path}: it has {size} bytes, max_bytes allows {max_bytes}: set it if the file is yours")
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        _check_tensors(model.graph, path, max_bytes)
        onnx.checker.check_model(model, full_check=False)
        about = parse_json({prop.key: prop.value for prop in model.metadata_props}[KEY], most_bytes=max_bytes)
        if about["form"] != FORM:
            raise ConversionError(f"{path}: its metadata have the form {about['form']!r}, expected {FORM}")
        return Loaded(model, str(about["kind"]), dict(about["layers"]), list(about["states"]))
    except ConversionError:
        raise
    except (DecodeError, onnx.checker.ValidationError, KeyError, ValueError, TypeError) as error:
        raise ConversionError(
            f"{path}: not a model of this plugin, or a damaged one ({type(error).__name__}: {error}): write it again"
        ) from error


def _check_tensors(graph: onnx.GraphProto, path: Path, max_bytes: int) -> None:
    """Every constant is in the file, and as large as its shape says."""
    for tensor in graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise ConversionError(f"{path}: the constant {tensor.name!r} lies in another file")
        count = math.prod(tensor.dims)
        if min(tensor.dims, default=0) < 0 or count * 8 > max_bytes:
            raise ConversionError(f"{path}: the constant {tensor.name!r} has the shape {list(tensor.dims)}")
        if tensor.data_type == TensorProto.INT64 and count <= MAX_AXES:
            sizes = [abs(int(size)) or 1 for size in onnx.numpy_helper.to_array(tensor).reshape(-1)]
            if math.prod(sizes) > MAX_VALUES:
                raise ConversionError(f"{path}: the shape {tensor.name!r} asks for {sizes}, more than is supported")
    for node in graph.node:
        if node.op_type not in OPERATIONS or node.domain:
            raise ConversionError(
                f"{path}: this plugin writes no {node.domain}:{node.op_type}; expected a file of ours"
            )
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _check_tensors(attribute.g, path, max_bytes)


def run_model(loaded: Loaded, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Run `x` `[T, B, ...]`; the output and what every neuron gives.

    Raises:
        PluginUnavailable: onnxruntime is missing.
        ShapeError: the model takes another shape.
    """
    model = ModelProto()
    model.CopyFrom(loaded.model)
    known = {info.name for info in model.graph.output}
    element = model.graph.input[0].type.tensor_type.elem_type
    for name in loaded.layers.values():
        if name not in known:
            model.graph.output.append(helper.make_tensor_value_info(name, element, None))
            known.add(name)
    session = _session(model)
    kind = np.float64 if element == TensorProto.DOUBLE else np.float32
    given = x.detach().cpu().numpy().astype(kind)
    _check_shape(loaded, given.shape)
    wanted = [OUTPUT, *loaded.layers.values()]
    if loaded.kind == "step":
        values = _step_by_step(session, loaded, given, wanted)
    else:
        values = session.run(wanted, {INPUT: given})
    tensors = [torch.from_numpy(np.array(value)).to(x.dtype) for value in values]
    return tensors[0], dict(zip(loaded.layers, tensors[1:], strict=True))


def _check_shape(loaded: Loaded, shape: tuple[int, ...]) -> None:
    dims = [dim.dim_value or None for dim in loaded.model.graph.input[0].type.tensor_type.shape.dim]
    allowed = [None, *dims] if loaded.kind == "step" else dims
    fits = len(shape) == len(allowed) and all(size in (None, got) for size, got in zip(allowed, shape, strict=True))
    if not fits or not all(shape[:2]):
        raise ShapeError(f"the model takes {['any' if size is None else size for size in allowed]}, got {list(shape)}")


def _session(model: ModelProto) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise PluginUnavailable(f"onnxruntime is missing ({error}): pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # sums do not depend on the number of threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _step_by_step(session: Any, loaded: Loaded, x: Any, wanted: list[str]) -> list[Any]:
    batch = x.shape[1]
    states = {
        state["input"]: np.array(
            np.broadcast_to(
                np.asarray(state["first"], x.dtype).reshape(state["shape"] if isinstance(state["first"], list) else ()),
                (batch, *state["shape"]),
            )
        )
        for state in loaded.states
    }
    steps = []
    names = [*wanted, *(state["output"] for state in loaded.states)]
    for now in x:
        values = session.run(names, {INPUT: now, **states})
        steps.append(values[: len(wanted)])
        states = {state["input"]: value for state, value in zip(loaded.states, values[len(wanted) :], strict=True)}
    return [np.stack(values) for values in zip(*steps, strict=True)]
