"""Layers without state → ONNX nodes, for `[N, ...]`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from spikecore import nn
from spikecore.nn import RefusedError
from spikecore_deploy_onnx.body import Array, Body

Shape = tuple[int, ...]
Layer = Any


def emit_layer(body: Body, layer: Layer, x: str, shape: Shape, int8: bool = False) -> tuple[str, Shape]:
    """Add a layer, which is mapped by its own type.

    Args:
        body: where to.
        layer: in evaluation mode.
        x: what it takes, `[N, *shape]`.
        shape: without the batch.
        int8: weights are stored as 8-bit integers and a scale per output.

    Returns:
        Its result, and the shape of that without the batch.

    Raises:
        RefusedError: there is no node for it.
    """
    writer = WRITERS.get(type(layer))
    if writer is None:
        raise RefusedError(f"there is no node for {type(layer).__name__} here", f"use {', '.join(KNOWN)} and neurons")
    for name, tensor in layer.named_parameters():
        if str(tensor.dtype) != f"torch.{body.dtype}":
            raise RefusedError(f"its {name} is {tensor.dtype}, the example input {body.dtype}", "use one dtype")
        if not bool(torch.isfinite(tensor).all()):
            raise RefusedError(f"its {name} holds a number that is not finite", "look at its training")
    return writer(body, layer, x, shape, int8)


def array_of(tensor: torch.Tensor) -> Array:
    """A copy of the values."""
    return tensor.detach().cpu().numpy().copy()


def has_weights(layer: Layer) -> bool:
    """Whether it has weights that can be stored as integers."""
    return type(layer) in (*LINEAR, *CONVOLUTIONS)


def quantized_weight(layer: Layer) -> tuple[Array, Array]:
    """(int8 values, scale per output): those of its record where it has one, else symmetric, largest weight to 127.

    Raises:
        RefusedError: its record does not fit 8 bits with one scale per output, or is not that of its weight.
    """
    record = nn.quantized.read(layer)
    weight = array_of(layer.weight)
    if record is None:
        largest = np.abs(weight).reshape(len(weight), -1).max(1)
        scale = np.where(largest > 0, largest / 127, 1.0).astype(weight.dtype)
        values = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
        return np.clip(values, -127, 127).astype(np.int8), scale
    values, zero_point = array_of(record.values), array_of(record.zero_point)
    if record.axis not in (None, 0) or zero_point.any() or values.min() < -128 or values.max() > 127:
        raise RefusedError(
            "its record of quantization does not fit int8 with one scale per output", "quantize to 8 bits"
        )
    scale = np.broadcast_to(array_of(record.scale), len(weight)).astype(weight.dtype)
    steps = scale.reshape(-1, *[1] * (weight.ndim - 1))
    error = np.abs(values * steps - weight)
    if bool((error > 1e-5 * (np.abs(weight) + steps)).any()):
        raise RefusedError(
            f"its weight differs from its record of quantization by up to {float(error.max()):.3g}: it changed since",
            "quantize it again, or call spikecore.nn.quantized.remove on it",
        )
    return values.astype(np.int8), scale


def quantization_error(layer: Layer) -> float:
    """The largest |weight - integer · scale| of a layer."""
    values, scale = quantized_weight(layer)
    weight = array_of(layer.weight)
    distance = np.abs(weight - values * scale.reshape(-1, *[1] * (weight.ndim - 1)))
    return float(distance.max()) if distance.size else 0.0


def _weight(body: Body, layer: Layer, int8: bool) -> str:
    if not int8:
        return body.number(array_of(layer.weight), "weight")
    values, scale = quantized_weight(layer)
    zeros = np.zeros(len(values), np.int8)
    inputs = [body.constant(values, "weight_int8"), body.number(scale, "scale"), body.constant(zeros, "zero_point")]
    return body.op("DequantizeLinear", inputs, "weight", axis=0)


def _linear(body: Body, layer: Layer, x: str, shape: Shape, int8: bool) -> tuple[str, Shape]:
    if not shape:
        raise RefusedError("it takes steps without axes", "give it [B, N]")
    weight = _weight(body, layer, int8)
    bias = [] if layer.bias is None else [body.number(array_of(layer.bias), "bias")]
    if len(shape) == 1:
        out = body.op("Gemm", [x, weight, *bias], transB=1)
    else:
        out = body.op("MatMul", [x, body.op("Transpose", [weight], perm=[1, 0])])
        out = body.op("Add", [out, *bias]) if bias else out
    return out, (*shape[:-1], layer.out_features)


def _convolution(body: Body, layer: Layer, x: str, shape: Shape, int8: bool) -> tuple[str, Shape]:
    if layer.padding_mode != "zeros":
        raise RefusedError(
            f"padding_mode={layer.padding_mode!r}: ONNX pads with zeros here", 'use padding_mode="zeros"'
        )
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    spans = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
    if layer.padding == "same":
        pads = [(span // 2, span - span // 2) for span in spans]
    else:
        edges = (0,) * len(kernel) if layer.padding == "valid" else layer.padding
        pads = [(edge, edge) for edge in edges]
    inputs = [
        x,
        _weight(body, layer, int8),
        *([] if layer.bias is None else [body.number(array_of(layer.bias), "bias")]),
    ]
    attributes = {"strides": list(stride), "dilations": list(dilation), "group": layer.groups}
    padding = [before for before, _ in pads] + [after for _, after in pads]
    out = body.op("Conv", inputs, pads=padding, **attributes)
    sizes = [
        (size + sum(pad) - span - 1) // step + 1
        for size, pad, span, step in zip(shape[1:], pads, spans, stride, strict=True)
    ]
    return out, (layer.out_channels, *sizes)


def _norm(body: Body, layer: Layer, x: str, shape: Shape, int8: bool) -> tuple[str, Shape]:
    if layer.running_mean is None or layer.running_var is None:
        raise RefusedError("it has no running statistics, so it depends on the batch", "track_running_stats=True")
    count = layer.num_features
    weight = np.ones(count) if layer.weight is None else array_of(layer.weight)
    bias = np.zeros(count) if layer.bias is None else array_of(layer.bias)
    arrays = (weight, bias, array_of(layer.running_mean), array_of(layer.running_var))
    names = [body.number(array, name) for array, name in zip(arrays, ("gamma", "beta", "mean", "var"), strict=True)]
    return body.op("BatchNormalization", [x, *names], epsilon=float(layer.eps)), shape


def _per_axis(value: Any, count: int) -> list[int]:
    return [value] * count if isinstance(value, int) else list(value)


def _pool(body: Body, layer: Layer, x: str, shape: Shape, int8: bool) -> tuple[str, Shape]:
    axes = len(shape) - 1
    kernel = _per_axis(layer.kernel_size, axes)
    stride, padding = _per_axis(layer.stride, axes), _per_axis(layer.padding, axes)
    if layer.ceil_mode:
        raise RefusedError("ceil_mode=True: runtimes differ in the last window", "use ceil_mode=False")
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": stride, "pads": padding * 2}
    is_max = type(layer).__name__.startswith("Max")
    dilation = _per_axis(layer.dilation, axes) if is_max else [1] * axes
    if is_max:
        if layer.return_indices:
            raise RefusedError("return_indices=True gives two results", "use return_indices=False")
        out = body.op("MaxPool", [x], dilations=dilation, **attributes)
    else:
        divisor = getattr(layer, "divisor_override", None)
        if divisor is None:
            out = body.op("AveragePool", [x], count_include_pad=int(layer.count_include_pad), **attributes)
        else:  # a sum: an average times the size of the window would be rounded twice
            ones = body.number(np.ones((shape[0], 1, *kernel)), "ones")
            out = body.op("Conv", [x, ones], group=shape[0], **attributes)
            out = out if divisor == 1 else body.op("Div", [out, body.number(divisor)])
    spans = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
    sizes = [
        (size + 2 * pad - span - 1) // step + 1
        for size, pad, span, step in zip(shape[1:], padding, spans, stride, strict=True)
    ]
    return out, (shape[0], *sizes)


def _adaptive(body: Body, layer: Layer, x: str, shape: Shape, int8: bool) -> tuple[str, Shape]:
    wanted = _per_axis(layer.output_size, len(shape) - 1)
    sizes = [given if size is None else size for given, size in zip(shape[1:], wanted, strict=True)]
    if any(given % size for given, size in zip(shape[1:], sizes, strict=True)):
        raise RefusedError(f"windows of {shape[1:]} to {tuple(sizes)} differ in size", "use AvgPool2d")
    kernel = [given // size for given, size in zip(shape[1:], sizes, strict=True)]
    return body.op("AveragePool", [x], kernel_shape=kernel, strides=kernel), (shape[0], *sizes)


def _relu(body: Body, layer: Layer, x: str, shape: Shape, int8: bool) -> tuple[str, Shape]:
    return body.op("Relu", [x]), shape


LINEAR = (torch.nn.Linear, nn.Linear)
CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Writer = Callable[[Body, Layer, str, Shape, bool], tuple[str, Shape]]
WRITERS: dict[type, Writer] = {
    **dict.fromkeys(LINEAR, _linear),
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys((torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d), _norm),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _norm),
    **dict.fromkeys((torch.nn.AvgPool1d, torch.nn.AvgPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.SumPool2d), _pool),
    **dict.fromkeys((torch.nn.MaxPool1d, torch.nn.MaxPool2d, nn.MaxPool1d, nn.MaxPool2d), _pool),
    **dict.fromkeys((torch.nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool2d), _adaptive),
    torch.nn.ReLU: _relu,
}
KNOWN = sorted({kind.__name__ for kind in WRITERS})
