"""An ONNX file as a checked model, with everything it refers to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from spikecore.errors import ConversionError


def packed(path: Path) -> bytes:
    """The file as one piece, its external data inside.

    Raises:
        ConversionError: it cannot be read, is no valid ONNX, or data that it refers to are missing.
    """
    if not path.is_file():
        raise ConversionError(f"{path}: there is no such file")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf has several, none of them public
        raise ConversionError(f"{path}: is no ONNX file, or is truncated: {error}") from error
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise ConversionError(f"{path}: its external data cannot be read, copy them beside it: {error}") from error
    content: bytes = model.SerializeToString()
    checked(content, str(path))
    return content


def checked(content: bytes, what: str = "the ONNX model") -> Any:
    """The model, checked, with inferred shapes.

    Raises:
        ConversionError: it is damaged.
    """
    try:
        model = onnx.load_model_from_string(content)
        if not model.graph.node and not model.graph.output:
            raise ValueError("it holds no graph")
        onnx.checker.check_model(model)
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # protobuf's, the checker's and the inference's have no base in common
        raise ConversionError(f"{what}: is no valid ONNX, or is truncated: {error}") from error


def tensor_of(proto: Any) -> Tensor:
    """A stored tensor."""
    return torch.from_numpy(numpy_helper.to_array(proto).copy())


def sizes_of(model: Any) -> dict[str, list[int | None]]:
    """Name of a value → its sizes, None where one is free, where inference knows them."""
    graph, sizes = model.graph, dict[str, list[int | None]]()
    for info in (*graph.input, *graph.value_info, *graph.output):
        if info.type.tensor_type.HasField("shape"):
            dims = info.type.tensor_type.shape.dim
            sizes[info.name] = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    return sizes


def ranks_of(model: Any) -> dict[str, int]:
    """Name of a value → its number of axes, where inference knows it."""
    graph, ranks = model.graph, dict[str, int]()
    for info in (*graph.input, *graph.value_info, *graph.output):
        if info.type.tensor_type.HasField("shape"):
            ranks[info.name] = len(info.type.tensor_type.shape.dim)
    for proto in graph.initializer:
        ranks[proto.name] = len(proto.dims)
    return ranks


def attributes_of(node: Any) -> dict[str, Any]:
    """Name → value, of numbers, lists, texts and tensors."""
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, onnx.TensorProto):
            value = tensor_of(value)
        elif attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
            value = tuple(value)
        values[attribute.name] = value
    return values
