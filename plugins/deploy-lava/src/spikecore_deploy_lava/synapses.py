"""What lies between two populations: pooling, a weight and a norm, as one set of synapses.

Lava has no average pooling and no norm. Both are linear, so they become part of the weights: of a convolution with a
larger kernel and stride, or of a larger matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from spikecore import nn
from spikecore.nn import RefusedError
from spikecore_deploy_lava.integers import Weights, array_of, exact_weights, weights_of
from spikecore_deploy_lava.network import Doubles, Shape, Synapses

LINEAR = (torch.nn.Linear, nn.Linear)
CONVOLUTIONS = (torch.nn.Conv2d, nn.Conv2d)
POOLS = (torch.nn.AvgPool2d, nn.AvgPool2d, nn.SumPool2d)
ADAPTIVE = (torch.nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool2d)
NORMS = (
    *(torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.SyncBatchNorm),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm),
)
POOL_CURE = "put it between a neuron and the next weight"


@dataclass(frozen=True)
class Pooling:
    """Windows that do not overlap.

    Args:
        size: of a window, and the distance of two.
        divisor: of a sum.
        shape: `[C, H, W]` before it.
    """

    size: tuple[int, int]
    divisor: int
    shape: Shape

    @property
    def pooled(self) -> Shape:
        """The shape behind it."""
        channels, height, width = self.shape
        return (channels, height // self.size[0], width // self.size[1])


@dataclass(frozen=True, eq=False)
class Pending:
    """Weights behind which no neuron came yet.

    Args:
        name: of the operator in the net.
        weights: with what lies before them.
        bias: one for each output or channel.
        synapses: their geometry; its weight is to be filled in.
        shape: of what they give.
    """

    name: str
    weights: Weights
    bias: Doubles
    synapses: Synapses
    shape: Shape


def pooling_of(layer: torch.nn.Module, shape: Shape) -> Pooling:
    """A pooling layer.

    Raises:
        RefusedError: its windows overlap, or it pads.
    """
    options: Any = layer
    if len(shape) != 3:
        raise RefusedError(f"it takes steps of the shape {shape}", "give it [C, H, W]")
    if type(layer) in ADAPTIVE:
        wanted = options.output_size if isinstance(options.output_size, tuple) else (options.output_size,) * 2
        sizes = [given if size is None else size for given, size in zip(shape[1:], wanted, strict=True)]
        if any(given % size for given, size in zip(shape[1:], sizes, strict=True)):
            raise RefusedError(f"windows from {shape[1:]} to {tuple(sizes)} differ in size", "use AvgPool2d")
        windows = [given // size for given, size in zip(shape[1:], sizes, strict=True)]
        return Pooling((windows[0], windows[1]), math.prod(windows), shape)
    size, stride, padding = (_pair(value) for value in (options.kernel_size, options.stride, options.padding))
    if size != stride or any(padding) or options.ceil_mode:
        raise RefusedError(
            f"its windows of {size} lie {stride} apart, padding {padding}", "let windows meet: stride = kernel_size"
        )
    if any(window > given for window, given in zip(size, shape[1:], strict=True)):
        raise RefusedError(f"windows of {size} do not fit into {shape[1:]}", "use smaller ones")
    return Pooling(size, options.divisor_override or math.prod(size), shape)


def linear(name: str, layer: torch.nn.Module, shape: Shape, source: Shape, pooling: Pooling | None) -> Pending:
    """A matrix, on what is pooled before it.

    Args:
        name: of the operator.
        layer: of one of the types `LINEAR`.
        shape: of a step that it takes, without T and B.
        source: of what the source gives.
        pooling: between the two, if any.

    Raises:
        RefusedError: a step has several axes.
    """
    if len(shape) != 1:
        raise RefusedError(f"it takes steps of the shape {shape}; a matrix takes one axis", "flatten before it")
    weights = checked(layer)
    if pooling is not None:
        spread = _spread_matrix(pooling)
        weights = weights.transformed(spread, pooling.divisor)
    outputs = weights.value.shape[0]
    return Pending(name, weights, bias_of(layer, outputs), Synapses(weights.value, len(source) > 1), (outputs,))


def convolution(name: str, layer: torch.nn.Module, shape: Shape, pooling: Pooling | None) -> Pending:
    """A kernel, on what is pooled before it; arguments as of `linear`.

    Raises:
        RefusedError: its padding is not of zeros, or not even.
    """
    options: Any = layer
    if options.padding_mode != "zeros":
        raise RefusedError(f"padding_mode={options.padding_mode!r}; Lava pads with zeros", 'use padding_mode="zeros"')
    if len(shape) != 3:
        raise RefusedError(f"it takes steps of the shape {shape}", "give it [C, H, W]")
    weights = checked(layer)
    outputs, _, *kernel = weights.value.shape
    stride, padding, dilation = tuple(options.stride), _padding(options), tuple(options.dilation)
    places = [
        (given + 2 * pad - gap * (size - 1) - 1) // step + 1
        for given, pad, gap, size, step in zip(shape[1:], padding, dilation, kernel, stride, strict=True)
    ]
    if pooling is not None:
        if any(given % size for given, size in zip(pooling.shape[1:], pooling.size, strict=True)):
            raise RefusedError(
                f"windows of {pooling.size} before it leave a rest of {pooling.shape[1:]}", "pool what they divide"
            )
        weights = weights.transformed(_spread_kernel(pooling.size, dilation), pooling.divisor)
        stride = tuple(size * step for size, step in zip(pooling.size, stride, strict=True))
        padding = tuple(size * pad for size, pad in zip(pooling.size, padding, strict=True))
        dilation = (1, 1)
    synapses = Synapses(weights.value, False, _two(stride), _two(padding), _two(dilation), options.groups)
    return Pending(name, weights, bias_of(layer, outputs), synapses, (outputs, *places))


def normed(pending: Pending, norm: torch.nn.Module) -> Pending:
    """The weights with the norm behind them.

    Raises:
        RefusedError: it has no running statistics.
    """
    options: Any = norm
    if options.running_mean is None or options.running_var is None:
        raise RefusedError("it has no running statistics, so it depends on the batch", "track_running_stats=True")
    scale = 1 / np.sqrt(array_of(options.running_var) + options.eps)
    if options.weight is not None:
        scale = scale * array_of(options.weight)
    shift = -array_of(options.running_mean) * scale
    if options.bias is not None:
        shift = shift + array_of(options.bias)
    value = pending.weights.value
    scaled = value * scale.reshape(-1, *[1] * (value.ndim - 1))
    return replace(pending, weights=exact_weights(scaled), bias=pending.bias * scale + shift)


def checked(layer: torch.nn.Module) -> Weights:
    """The weights of a layer.

    Raises:
        RefusedError: something in it is not finite.
    """
    for name, tensor in layer.named_parameters(recurse=False):
        if not bool(torch.isfinite(tensor).all()):
            raise RefusedError(f"its {name} holds a number that is not finite", "look at its training")
    return weights_of(layer)


def bias_of(layer: torch.nn.Module, outputs: int) -> Doubles:
    """Of a layer; zeros where it has none."""
    return np.zeros(outputs) if layer.bias is None else array_of(layer.bias)  # type: ignore[arg-type]


def _spread_matrix(pooling: Pooling) -> Any:
    """Weights of pooled places → weights of all places; a rest beyond the last window has none."""

    def spread(weight: Doubles) -> Doubles:
        channels, height, width = pooling.pooled
        places = weight.reshape(-1, channels, height, width)
        places = places.repeat(pooling.size[0], axis=2).repeat(pooling.size[1], axis=3)
        rest = [(0, given - have) for given, have in zip(pooling.shape[1:], places.shape[2:], strict=True)]
        return np.pad(places, [(0, 0), (0, 0), *rest]).reshape(len(weight), -1)

    return spread


def _spread_kernel(size: tuple[int, int], dilation: tuple[int, ...]) -> Any:
    """A kernel over pooled places → one over all places."""

    def spread(weight: Doubles) -> Doubles:
        rows, columns = weight.shape[2:]
        height = (rows - 1) * dilation[0] * size[0] + size[0]
        width = (columns - 1) * dilation[1] * size[1] + size[1]
        whole = np.zeros((*weight.shape[:2], height, width))
        for row in range(rows):
            for column in range(columns):
                top, left = row * dilation[0] * size[0], column * dilation[1] * size[1]
                whole[:, :, top : top + size[0], left : left + size[1]] = weight[:, :, row, column, None, None]
        return whole

    return spread


def _padding(options: Any) -> tuple[int, ...]:
    if not isinstance(options.padding, str):
        return tuple(options.padding)
    if options.padding == "valid":
        return (0, 0)
    spans = [gap * (size - 1) for gap, size in zip(options.dilation, options.kernel_size, strict=True)]
    if any(span % 2 for span in spans):
        raise RefusedError("padding='same' with a kernel of even size pads unevenly", "use an odd kernel")
    return tuple(span // 2 for span in spans)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _two(values: tuple[int, ...]) -> tuple[int, int]:
    return (int(values[0]), int(values[1]))
