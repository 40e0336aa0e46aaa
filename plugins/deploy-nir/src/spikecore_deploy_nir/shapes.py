"""Shapes of the values in a graph, without T and B: what a node makes of the shape that it is given.

Every size is checked against the arrays of the node before anything is computed, so a file that does not fit together,
or that asks for an output of a terabyte, is an error and nothing else.
"""

from __future__ import annotations

import math

import numpy as np

from spikecore.errors import ConversionError
from spikecore_deploy_nir.graph import NEURONS, NirNode

Shape = tuple[int, ...]

MAX_OUTPUTS = 2**31
"""Of one node, for one sample and step."""
MAX_INT = 2**31


def output_shape(name: str, node: NirNode, shape: Shape) -> Shape:
    """What the node gives for an input of this shape.

    Raises:
        ConversionError: the node does not take that input, or its values contradict each other.
    """
    if node.type in ("Affine", "Linear"):
        out = _matrix(name, node, shape)
    elif node.type in ("Conv1d", "Conv2d"):
        out = _convolution(name, node, shape)
    elif node.type in ("SumPool2d", "AvgPool2d"):
        out = _pool(name, node, shape)
    elif node.type == "Flatten":
        out = _flatten(name, node, shape)
    else:
        if node.type in (*NEURONS, "Scale", "Delay"):
            for value in node.values:
                parameter(name, node, value, shape)
        out = shape
    if math.prod(out) > MAX_OUTPUTS:
        raise ConversionError(f"node {name!r}: an output of {out} is more than is supported ({MAX_OUTPUTS} numbers)")
    return out


def parameter(name: str, node: NirNode, value: str, shape: Shape) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """A value of a node as an array that broadcasts over `shape`: of that shape, one number, or one per channel.

    Raises:
        ConversionError: it is of another shape, or not finite.
    """
    if isinstance(node.values[value], str):
        raise ConversionError(f"node {name!r}: {value} is text, expected numbers")
    array = node.array(value)
    if not np.isfinite(array).all():
        raise ConversionError(f"node {name!r}: {value} holds a number that is not finite")
    if array.size == 1:
        return array.reshape(())
    if array.shape == shape:
        return array
    if shape and array.shape in ((shape[0],), (shape[0], *[1] * (len(shape) - 1))):
        return array.reshape(-1, *[1] * (len(shape) - 1))
    raise ConversionError(f"node {name!r}, a {node.type}: {value} has the shape {array.shape}, its input {shape}")


def pair(name: str, node: NirNode, value: str, count: int = 2) -> tuple[int, ...]:
    """Whole numbers, one for each spatial axis.

    Raises:
        ConversionError: it is something else.
    """
    raw = node.values[value]
    array = np.asarray(raw if not isinstance(raw, str) else np.nan, dtype=np.float64).reshape(-1)
    if array.size == 1:
        array = np.repeat(array, count)
    is_whole = array.size == count and bool(np.isfinite(array).all()) and bool((array == np.floor(array)).all())
    if not is_whole or bool((np.abs(array) > MAX_INT).any()):
        raise ConversionError(f"node {name!r}: {value} must be {count} whole numbers, got {raw!r}")
    return tuple(int(number) for number in array)


def padding_of(name: str, node: NirNode, kernel: Shape, dilation: Shape, stride: Shape) -> Shape:
    """The padding in numbers; `same` and `valid` are words for some.

    Raises:
        ConversionError: `same` with a stride, or with a kernel that has no middle.
    """
    raw = node.values["padding"]
    if isinstance(raw, str) and raw == "valid":
        return (0,) * len(kernel)
    if isinstance(raw, str) and raw == "same":
        spans = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        if any(size != 1 for size in stride) or any(span % 2 for span in spans):
            raise ConversionError(f"node {name!r}: padding 'same' needs stride 1 and kernels with a middle")
        return tuple(span // 2 for span in spans)
    return pair(name, node, "padding", len(kernel))


def _matrix(name: str, node: NirNode, shape: Shape) -> Shape:
    weight = node.array("weight")
    if weight.ndim != 2 or shape != (weight.shape[1],):
        raise ConversionError(f"node {name!r}: a weight {weight.shape} does not take an input of the shape {shape}")
    _check_bias(name, node, weight.shape[0])
    return (weight.shape[0],)


def _check_bias(name: str, node: NirNode, count: int) -> None:
    if "bias" in node.values and node.array("bias").shape != (count,):
        raise ConversionError(f"node {name!r}: expected a bias of {count} numbers, got {node.array('bias').shape}")


def _convolution(name: str, node: NirNode, shape: Shape) -> Shape:
    weight = node.array("weight")
    axes = 1 if node.type == "Conv1d" else 2
    groups = pair(name, node, "groups", 1)[0]
    is_sound = weight.ndim == axes + 2 and len(shape) == axes + 1 and groups >= 1 and weight.shape[0] % groups == 0
    if not is_sound or shape[0] != weight.shape[1] * groups:
        raise ConversionError(
            f"node {name!r}: a weight {weight.shape} in {groups} groups does not take an input of the shape {shape}"
        )
    _check_bias(name, node, weight.shape[0])
    stride, dilation = pair(name, node, "stride", axes), pair(name, node, "dilation", axes)
    padding = padding_of(name, node, weight.shape[2:], dilation, stride)
    return (weight.shape[0], *_slid(name, shape[1:], weight.shape[2:], stride, padding, dilation))


def _pool(name: str, node: NirNode, shape: Shape) -> Shape:
    if len(shape) != 3:
        raise ConversionError(f"node {name!r}, a {node.type}, takes [C, H, W], got {shape}")
    kernel, stride, padding = (pair(name, node, value) for value in ("kernel_size", "stride", "padding"))
    if any(2 * edge > size for edge, size in zip(padding, kernel, strict=True)):
        raise ConversionError(f"node {name!r}: padding {padding} is more than half of the kernel {kernel}")
    return (shape[0], *_slid(name, shape[1:], kernel, stride, padding, (1, 1)))


def _slid(name: str, shape: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    """Places of a window."""
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        raise ConversionError(f"node {name!r}: kernel, stride and dilation must be positive, padding at least 0")
    places = []
    for axis, size in enumerate(shape):
        room = size + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1
        if room < 0:
            raise ConversionError(f"node {name!r}: a kernel {kernel} does not fit into {shape} with padding {padding}")
        if math.prod(shape) and size + 2 * padding[axis] > MAX_INT:
            raise ConversionError(f"node {name!r}: a padding of {padding} is more than is supported")
        places.append(room // stride[axis] + 1)
    return tuple(places)


def _flatten(name: str, node: NirNode, shape: Shape) -> Shape:
    """Axes count without the batch, as `nir` counts them; files that count it as 0 begin at 1 and flatten all."""
    start, end = pair(name, node, "start_dim", 1)[0], pair(name, node, "end_dim", 1)[0]
    last = end + len(shape) if end < 0 else end
    if start not in (0, 1) or last not in (len(shape) - 1, len(shape)):
        raise ConversionError(
            f"node {name!r}: start_dim {start} and end_dim {end} of an input {shape}; only flattening a whole step is "
            "supported"
        )
    return (math.prod(shape),)
