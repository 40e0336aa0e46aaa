"""Layers without state as functions of `[N, ...]`: the calls that torch's own modules make, with static arguments.

Each function takes what enters the layer and its tensors by name, so that all weights of a net lie side by side in one
flat module, whatever its containers are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from spikecore import nn
from spikecore.nn import RefusedError

Tensors = Mapping[str, Tensor]
Function = Callable[[Tensor, Tensors], Tensor]
Layer = Any
"""A module of a known type; its attributes are not in the types of `torch.nn.Module`."""


@dataclass(frozen=True, eq=False)
class Converted:
    """A layer for the chip.

    Args:
        target: what it is there, for the records.
        function: of its input `[N, ...]` and `tensors`.
        tensors: its weights and constants.
        inexact: why its numbers may differ from the net's in the last bits; empty where they do not.
    """

    target: str
    function: Function
    tensors: Tensors = field(default_factory=dict)
    inexact: str = ""


def converted(layer: Layer) -> Converted:
    """A layer, by its own type.

    Raises:
        RefusedError: it has no static form of at most four axes.
    """
    maker = MAKERS.get(type(layer))
    if maker is None:
        raise RefusedError(
            f"{type(layer).__name__} has no form for the chip", f"use {', '.join(KNOWN)}, and registered neurons"
        )
    # Its own: the record of a quantized layer is a module in it, with scales in doubles.
    for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise RefusedError(f"its {name} is {tensor.dtype}", "use float32: net.float()")
        if not bool(torch.isfinite(tensor).all()):
            raise RefusedError(f"its {name} holds a number that is not finite", "look at its training")
    return maker(layer)


def _values(**tensors: Tensor | None) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in tensors.items() if tensor is not None}


def _linear(layer: Layer) -> Converted:
    def function(x: Tensor, own: Tensors) -> Tensor:
        return F.linear(x, own["weight"], own.get("bias"))

    return Converted("Linear", function, _values(weight=layer.weight, bias=layer.bias))


def _convolution(layer: Layer) -> Converted:
    if layer.padding_mode != "zeros":
        raise RefusedError(f"padding_mode={layer.padding_mode!r}; the chip pads with zeros", 'use padding_mode="zeros"')
    spans = [step * (size - 1) for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
    if layer.padding == "valid":
        padding = (0,) * len(spans)
    elif layer.padding == "same":
        if any(span % 2 for span in spans):
            raise RefusedError('padding="same" pads more on one side for this kernel', "use an odd kernel size")
        padding = tuple(span // 2 for span in spans)
    else:
        padding = tuple(layer.padding)
    convolve: Any = F.conv1d if len(spans) == 1 else F.conv2d
    stride, dilation, groups = tuple(layer.stride), tuple(layer.dilation), int(layer.groups)

    def function(x: Tensor, own: Tensors) -> Tensor:
        out: Tensor = convolve(x, own["weight"], own.get("bias"), stride, padding, dilation, groups)
        return out

    return Converted(f"Conv{len(spans)}d", function, _values(weight=layer.weight, bias=layer.bias))


def _norm(layer: Layer) -> Converted:
    if layer.running_mean is None or layer.running_var is None:
        raise RefusedError(
            "it has no running statistics, so it depends on the batch", "train it with track_running_stats=True"
        )
    eps = float(layer.eps)

    def function(x: Tensor, own: Tensors) -> Tensor:
        return F.batch_norm(x, own["mean"], own["var"], own.get("weight"), own.get("bias"), False, 0.0, eps)

    tensors = _values(mean=layer.running_mean, var=layer.running_var, weight=layer.weight, bias=layer.bias)
    return Converted("BatchNorm", function, tensors)


def _per_axis(value: Any, count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


def _check_pool(layer: Layer) -> None:
    if layer.ceil_mode:
        raise RefusedError("ceil_mode=True: compilers differ in the last window", "use ceil_mode=False")
    if getattr(layer, "return_indices", False):
        raise RefusedError("return_indices=True gives two results", "use return_indices=False")


def _max_pool(axes: int) -> Callable[[Layer], Converted]:
    pool: Any = F.max_pool1d if axes == 1 else F.max_pool2d

    def make(layer: Layer) -> Converted:
        _check_pool(layer)
        options = [_per_axis(getattr(layer, name), axes) for name in ("kernel_size", "stride", "padding", "dilation")]
        return Converted(f"MaxPool{axes}d", lambda x, own: pool(x, *options))

    return make


def _average_pool(axes: int) -> Callable[[Layer], Converted]:
    pool: Any = F.avg_pool1d if axes == 1 else F.avg_pool2d

    def make(layer: Layer) -> Converted:
        _check_pool(layer)
        kernel, stride, padding = (
            _per_axis(getattr(layer, name), axes) for name in ("kernel_size", "stride", "padding")
        )
        divisor = getattr(layer, "divisor_override", None)
        if divisor is not None:
            return _sum_pool(kernel, stride, padding, float(divisor))
        counts_padding = bool(layer.count_include_pad)
        return Converted(f"AvgPool{axes}d", lambda x, own: pool(x, kernel, stride, padding, False, counts_padding))

    return make


def _sum_pool(kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], divisor: float) -> Converted:
    """Neither ONNX nor the compiler's reader knows a divisor: an average times the size of the window."""
    size = kernel[0] * kernel[1]
    factor = size / divisor

    def function(x: Tensor, own: Tensors) -> Tensor:
        mean = F.avg_pool2d(x, kernel, stride, padding, False, True)
        return mean if factor == 1.0 else mean * factor

    is_power_of_two = size & (size - 1) == 0 and factor.hex().startswith("0x1.0000000000000p")
    inexact = "" if is_power_of_two else f"the mean over {size} values, times {factor:g}, is rounded twice"
    return Converted("AvgPool2d and a factor", function, inexact=inexact)


def _adaptive_pool(layer: Layer) -> Converted:
    """Windows of one size: a plain pool, whose shape is known when the net is compiled."""
    wanted = _per_axis(layer.output_size, 2)

    def function(x: Tensor, own: Tensors) -> Tensor:
        kernel = []
        for given, size in zip(x.shape[-2:], wanted, strict=True):
            size = int(given) if size is None else size
            if int(given) % size:
                raise RefusedError(f"windows from {given} to {size} values differ in size", "use AvgPool2d")
            kernel.append(int(given) // size)
        return F.avg_pool2d(x, kernel, kernel)

    return Converted("AvgPool2d", function)


def _relu(layer: Layer) -> Converted:
    return Converted("ReLU", lambda x, own: F.relu(x))


MAKERS: dict[type, Callable[[Layer], Converted]] = {
    **dict.fromkeys((torch.nn.Linear, nn.Linear), _linear),
    **dict.fromkeys((torch.nn.Conv1d, torch.nn.Conv2d, nn.Conv1d, nn.Conv2d), _convolution),
    **dict.fromkeys((torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, nn.BatchNorm1d, nn.BatchNorm2d), _norm),
    **dict.fromkeys((torch.nn.MaxPool1d, nn.MaxPool1d), _max_pool(1)),
    **dict.fromkeys((torch.nn.MaxPool2d, nn.MaxPool2d), _max_pool(2)),
    **dict.fromkeys((torch.nn.AvgPool1d, nn.AvgPool1d), _average_pool(1)),
    **dict.fromkeys((torch.nn.AvgPool2d, nn.AvgPool2d, nn.SumPool2d), _average_pool(2)),
    **dict.fromkeys((torch.nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool2d), _adaptive_pool),
    torch.nn.ReLU: _relu,
}
KNOWN = sorted({kind.__name__ for kind in MAKERS})
