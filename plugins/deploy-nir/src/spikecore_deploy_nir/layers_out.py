"""Layers without state → nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from spikecore import nn
from spikecore.nn import RefusedError
from spikecore_deploy_nir.graph import NirNode, Value
from spikecore_deploy_nir.modules import Scale
from spikecore_deploy_nir.shapes import Shape

Layer = Any
LINEAR = (torch.nn.Linear, nn.Linear)
NORMS = (
    *(torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
)


def written_layer(layer: Layer, shape: Shape, dtype: str) -> NirNode:
    """The node of a layer, which is mapped by its own type.

    Args:
        layer: in evaluation mode.
        shape: what it takes, without T and B.
        dtype: in which a reader computes.

    Raises:
        RefusedError: NIR has nothing for it.
    """
    writer = WRITERS.get(type(layer))
    if writer is None:
        raise RefusedError(
            f"NIR has no {type(layer).__name__}",
            "use Linear, Conv1d, Conv2d, AvgPool2d, SumPool2d, Flatten, batch norm after a weight, and neurons",
        )
    for name, tensor in layer.named_parameters():
        if str(tensor.dtype) != f"torch.{dtype}":
            raise RefusedError(
                f"its {name} is {tensor.dtype}, the file is for readers in {dtype}",
                f"convert the net, or set dtype={str(tensor.dtype).removeprefix('torch.')} where a reader has it",
            )
        if not bool(torch.isfinite(tensor).all()):
            raise RefusedError(f"its {name} holds a number that is not finite", "look at its training")
    return writer(layer, shape)


def array_of(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A copy of the values."""
    return tensor.detach().cpu().numpy().copy()


def _linear(layer: Layer, shape: Shape) -> NirNode:
    if len(shape) != 1:
        raise RefusedError(f"it takes steps of the shape {shape}; NIR's weights take one axis", "flatten before it")
    values: dict[str, Value] = {"weight": array_of(layer.weight)}
    if layer.bias is None:
        return NirNode("Linear", values)
    return NirNode("Affine", {**values, "bias": array_of(layer.bias)})


def _convolution(layer: Layer, shape: Shape) -> NirNode:
    if layer.padding_mode != "zeros":
        raise RefusedError(f"padding_mode={layer.padding_mode!r}: NIR pads with zeros", 'use padding_mode="zeros"')
    axes = len(layer.kernel_size)
    if len(shape) != axes + 1:
        raise RefusedError(f"it takes steps of the shape {shape}", f"give it [C, ...] with {axes} spatial axes")
    weight = _whole_weight(layer)
    bias = np.zeros(weight.shape[0], weight.dtype) if layer.bias is None else array_of(layer.bias)
    spatial = shape[1:]
    values: dict[str, Value] = {"weight": weight, "bias": bias, "groups": np.array(1)}
    values["input_shape"] = np.array(spatial[0] if axes == 1 else spatial)
    for name, numbers in (("stride", layer.stride), ("padding", _padding(layer)), ("dilation", layer.dilation)):
        values[name] = np.array(numbers[0] if axes == 1 else numbers)
    return NirNode(f"Conv{axes}d", values)


def _whole_weight(layer: Layer) -> np.ndarray[Any, Any]:
    """The weight without groups, zeros in the place of what a group does not see: `nir` checks the shapes of files as
    if there were no groups."""
    weight, groups = array_of(layer.weight), layer.groups
    outputs, inputs = weight.shape[:2]
    whole = np.zeros((outputs, inputs * groups, *weight.shape[2:]), weight.dtype)
    share = outputs // groups
    for group in range(groups):
        rows = slice(group * share, (group + 1) * share)
        whole[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return whole


def _padding(layer: Layer) -> tuple[int, ...]:
    if not isinstance(layer.padding, str):
        return tuple(layer.padding)
    if layer.padding == "valid":
        return (0,) * len(layer.kernel_size)
    spans = [step * (size - 1) for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
    if any(span % 2 for span in spans):
        raise RefusedError("padding='same' with a kernel of even size pads unevenly", "use an odd kernel")
    return tuple(span // 2 for span in spans)


def _pool(layer: Layer, shape: Shape) -> NirNode:
    kernel, stride, padding = (_pair(value) for value in (layer.kernel_size, layer.stride, layer.padding))
    if layer.ceil_mode:
        raise RefusedError("ceil_mode=True: NIR rounds down", "use ceil_mode=False")
    if not layer.count_include_pad and any(padding):
        raise RefusedError("count_include_pad=False: NIR divides by the whole kernel", "use count_include_pad=True")
    size = kernel[0] * kernel[1]
    divisor = layer.divisor_override or size
    if divisor not in (1, size):
        raise RefusedError(f"divisor_override={divisor}: NIR divides by {size} or by 1", "leave it out")
    values = {"kernel_size": np.array(kernel), "stride": np.array(stride), "padding": np.array(padding)}
    return NirNode("AvgPool2d" if divisor == size else "SumPool2d", values)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _adaptive_pool(layer: Layer, shape: Shape) -> NirNode:
    """Windows of one size, where the output divides the input."""
    wanted = layer.output_size if isinstance(layer.output_size, tuple) else (layer.output_size,) * 2
    sizes = [given if size is None else size for given, size in zip(shape[1:], wanted, strict=True)]
    if len(shape) != 3 or any(given % size for given, size in zip(shape[1:], sizes, strict=True)):
        raise RefusedError(f"windows of {shape[1:]} to {tuple(sizes)} differ in size", "use AvgPool2d")
    kernel = np.array([given // size for given, size in zip(shape[1:], sizes, strict=True)])
    return NirNode("AvgPool2d", {"kernel_size": kernel, "stride": kernel, "padding": np.zeros(2, np.int64)})


def _scale(layer: Layer, shape: Shape) -> NirNode:
    return NirNode("Scale", {"scale": np.array(np.broadcast_to(array_of(layer.scale), shape))})


def flatten_node(shape: Shape) -> NirNode:
    """Flattens a whole step; axes count without the batch, as `nir` checks them."""
    return NirNode("Flatten", {"start_dim": np.array(0), "end_dim": np.array(-1), "input_type": np.array(shape)})


def folded_norm(norm: Layer, node: NirNode) -> NirNode:
    """The node of a weight with the norm after it in its weight and bias, computed in doubles.

    Raises:
        RefusedError: the norm has no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise RefusedError("it has no running statistics, so it depends on the batch", "track_running_stats=True")
    scale = 1 / np.sqrt(array_of(norm.running_var).astype(np.float64) + norm.eps)
    if norm.weight is not None:
        scale = scale * array_of(norm.weight)
    shift = -array_of(norm.running_mean).astype(np.float64) * scale
    if norm.bias is not None:
        shift = shift + array_of(norm.bias)
    weight = np.asarray(node.values["weight"])
    bias = np.asarray(node.values["bias"]) if "bias" in node.values else np.zeros(weight.shape[0])
    values = dict(node.values)
    values["weight"] = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(weight.dtype)
    values["bias"] = (bias * scale + shift).astype(weight.dtype)
    return NirNode("Affine" if node.type == "Linear" else node.type, values)


WRITERS: dict[type, Callable[[Layer, Shape], NirNode]] = {
    **dict.fromkeys(LINEAR, _linear),
    **dict.fromkeys((torch.nn.Conv1d, torch.nn.Conv2d, nn.Conv1d, nn.Conv2d), _convolution),
    **dict.fromkeys((torch.nn.AvgPool2d, nn.AvgPool2d, nn.SumPool2d), _pool),
    **dict.fromkeys((torch.nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool2d), _adaptive_pool),
    Scale: _scale,
}
