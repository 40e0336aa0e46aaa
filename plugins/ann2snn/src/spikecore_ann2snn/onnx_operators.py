"""ONNX operators as torch's layers and functions.

`LAYERS`: those with weights or with a layer of torch's own; `OPERATIONS`: functions of tensors; `SIZES`: functions of
numbers that come from shapes, as Python tuples and numbers. Each entry makes the call from one node's attributes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Unsupported(Exception):
    """A node that has no counterpart, and why."""


@dataclass(frozen=True)
class Op:
    """One node.

    Args:
        type: of the operator.
        name: for the layer that it becomes.
        domain: "" for ONNX's own.
        attributes: name → value.
        inputs: names; "" for one that is left out.
        outputs: names.
        known: for each input its value, where it is constant.
        ranks: for each input its number of axes, where it is known.
        batch: batch size that the model was exported for; None where it is free.
        batch_axis: of the first input that is not constant.
        version: of ONNX's own operators (opset).
    """

    type: str
    name: str
    domain: str
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    known: tuple[Tensor | None, ...]
    ranks: tuple[int | None, ...]
    batch: int | None
    batch_axis: int = 0
    version: int = 13

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def constant(self, place: int, what: str) -> Tensor:
        """The value of an input that has to be constant."""
        value = self.optional(place)
        if value is None:
            raise Unsupported(f"its {what} must be constant")
        return value

    def optional(self, place: int) -> Tensor | None:
        """The value of an input that is constant or left out."""
        if place >= len(self.inputs) or not self.inputs[place]:
            return None
        if self.known[place] is None:
            raise Unsupported(f"its input {place} must be constant")
        return self.known[place]

    def has(self, place: int) -> bool:
        """Whether there is such an input."""
        return place < len(self.inputs) and bool(self.inputs[place])

    def rank(self, place: int = 0) -> int:
        """Number of axes of an input."""
        rank = self.ranks[place]
        if rank is None or rank < 0:
            raise Unsupported("the number of axes of its input is not known: export the model with static ranks")
        return rank

    def consumed(self) -> frozenset[str]:
        """Inputs that have been read already, and are no arguments of the call."""
        places = _CONSUMED.get(self.type, ())
        return frozenset(self.inputs[place] for place in places if self.has(place) and self.known[place] is not None)


_CONSUMED: dict[str, tuple[int, ...]] = {
    "Reshape": (1,),
    "Expand": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "Slice": (1, 2, 3, 4),
    "Gather": (1,),
    "Split": (1,),
    "Pad": (1, 2, 3),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "ReduceMean": (1,),
    "ReduceSum": (1,),
    "ReduceMax": (1,),
    "Clip": (1, 2),
    "Max": (0, 1),
    "Min": (0, 1),
    "Dropout": (1, 2),
}

Layer = Callable[..., Any]
_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_MAX = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


def _padding(op: Op, axes: int) -> tuple[int, ...]:
    if op.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise Unsupported(f"auto_pad={op.get('auto_pad')}: export it with explicit pads")
    pads = tuple(op.get("pads", (0,) * (2 * axes)))
    if pads[:axes] != pads[axes:]:
        raise Unsupported(f"pads {pads} differ at both ends: put a Pad before it")
    return pads[:axes]


def _conv(op: Op) -> nn.Module:
    weight, bias = op.constant(1, "weight"), op.optional(2)
    axes, groups = weight.dim() - 2, op.get("group", 1)
    if axes not in _CONVS:
        raise Unsupported(f"a convolution over {axes} axes")
    layer = _CONVS[axes](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        op.get("strides", (1,) * axes),
        _padding(op, axes),  # type: ignore[arg-type]
        op.get("dilations", (1,) * axes),
        groups,
        bias is not None,
    )
    return _loaded(layer, weight, bias)


def _conv_transpose(op: Op) -> nn.Module:
    weight, bias = op.constant(1, "weight"), op.optional(2)
    axes, groups = weight.dim() - 2, op.get("group", 1)
    if axes not in _TRANSPOSED or op.get("output_shape") is not None:
        raise Unsupported("a transposed convolution with output_shape, or over more than 3 axes")
    layer = _TRANSPOSED[axes](
        weight.shape[0],
        weight.shape[1] * groups,
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        op.get("strides", (1,) * axes),
        _padding(op, axes),  # type: ignore[arg-type]
        op.get("output_padding", (0,) * axes),
        groups,
        bias is not None,
        op.get("dilations", (1,) * axes),
    )
    return _loaded(layer, weight, bias)


def _loaded(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer.weight = nn.Parameter(weight.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer


def _gemm(op: Op) -> nn.Module:
    if op.get("transA", 0):
        raise Unsupported("transA=1")
    weight = op.constant(1, "second factor")
    weight = (weight if op.get("transB", 0) else weight.T) * op.get("alpha", 1.0)
    bias = op.optional(2)
    if bias is not None:
        while bias.dim() > 1 and bias.shape[0] == 1:
            bias = bias[0]
        if bias.dim() > 1:
            raise Unsupported(f"its bias {tuple(bias.shape)} has a row for each sample: one row is a bias of the layer")
        bias = (bias * op.get("beta", 1.0)).expand(weight.shape[0])
    return _loaded(nn.Linear(weight.shape[1], weight.shape[0], bias is not None), weight, bias)


def _matmul(op: Op) -> Any:
    weight = op.known[1]
    if weight is None or weight.dim() != 2:
        return torch.matmul
    return _loaded(nn.Linear(weight.shape[0], weight.shape[1], False), weight.T, None)


def _batch_norm(op: Op) -> nn.Module:
    if op.get("training_mode", 0):
        raise Unsupported("training_mode=1: export the net in evaluation mode")
    gain, bias, mean, var = (op.constant(place, "statistics") for place in (1, 2, 3, 4))
    layer = _NORMS.get(op.rank(), nn.BatchNorm2d)(len(gain), eps=op.get("epsilon", 1e-5))
    layer.running_mean, layer.running_var = mean.clone(), var.clone()
    return _loaded(layer, gain, bias)


def _pool(kinds: dict[int, Any]) -> Callable[[Op], nn.Module]:
    def make(op: Op) -> nn.Module:
        kernel = tuple(op.get("kernel_shape"))
        axes = len(kernel)
        options: dict[str, Any] = {
            "stride": tuple(op.get("strides", (1,) * axes)),
            "padding": _padding(op, axes),
            "ceil_mode": bool(op.get("ceil_mode", 0)),
        }
        dilation = tuple(op.get("dilations", (1,) * axes))
        if axes not in kinds or len(op.outputs) > 1:
            raise Unsupported("pooling with indices, or over more than 3 axes")
        if kinds is _MAX:
            options["dilation"] = dilation
        else:
            options["count_include_pad"] = bool(op.get("count_include_pad", 0))
            if set(dilation) != {1}:
                raise Unsupported("average pooling with dilation")
        if axes == 1:
            options = {key: value[0] if isinstance(value, tuple) else value for key, value in options.items()}
        layer: nn.Module = kinds[axes](kernel if axes > 1 else kernel[0], **options)
        return layer

    return make


def _global(name: str) -> Callable[[Op], nn.Module]:
    def make(op: Op) -> nn.Module:
        axes = op.rank() - 2
        if axes not in (1, 2, 3):
            raise Unsupported(f"global pooling over {axes} axes")
        layer: nn.Module = getattr(nn, f"Adaptive{name}Pool{axes}d")(1)
        return layer

    return make


def _clip(op: Op) -> nn.Module:
    low, high = op.get("min"), op.get("max")
    bounds = [op.optional(1), op.optional(2)]
    low = float(bounds[0]) if bounds[0] is not None else low
    high = float(bounds[1]) if bounds[1] is not None else high
    if low is not None and high is not None and low >= high:
        raise Unsupported(f"its limits {low:g} and {high:g} leave a constant, or nothing")
    if low == 0 and high is None:
        return nn.ReLU()
    if low == 0 and high == 6:
        return nn.ReLU6()
    return nn.Hardtanh(-float("inf") if low is None else low, float("inf") if high is None else high)


def _softmax(kind: type[nn.Module]) -> Callable[[Op], nn.Module]:
    def make(op: Op) -> nn.Module:
        is_old = op.version < 13
        axis = op.get("axis", 1 if is_old else -1) % op.rank()
        if axis == op.batch_axis:
            raise Unsupported("over the batch")
        if is_old and axis != op.rank() - 1:
            raise Unsupported(f"of opset {op.version}, over several axes at once: export it with opset 13 or newer")
        return kind(axis)

    return make


def _layer_norm(op: Op) -> nn.Module:
    gain, bias = op.constant(1, "scale"), op.optional(2)
    if op.get("axis", -1) not in (-gain.dim(), op.rank() - gain.dim()):
        raise Unsupported("an axis that does not suit its scale")
    return _loaded(nn.LayerNorm(tuple(gain.shape), op.get("epsilon", 1e-5), bias=bias is not None), gain, bias)


def _rms_norm(op: Op) -> nn.Module:
    gain = op.constant(1, "scale")
    if op.get("axis", -1) not in (-gain.dim(), op.rank() - gain.dim()):
        raise Unsupported("an axis that does not suit its scale")
    return _loaded(nn.RMSNorm(tuple(gain.shape), op.get("epsilon", 1e-5)), gain, None)


def _group_norm(op: Op) -> nn.Module:
    gain, bias = op.constant(1, "scale"), op.constant(2, "bias")
    return _loaded(nn.GroupNorm(op.get("num_groups"), len(gain), op.get("epsilon", 1e-5)), gain, bias)


def _hard_sigmoid(op: Op) -> nn.Module:
    if abs(op.get("alpha", 0.2) - 1 / 6) > 1e-6 or op.get("beta", 0.5) != 0.5:
        raise Unsupported("a slope other than 1/6")
    return nn.Hardsigmoid()


def _flatten(op: Op) -> nn.Module:
    axis = op.get("axis", 1)
    if axis % max(op.rank(), 1) != 1:
        raise Unsupported(f"axis={axis} joins the batch with what follows, or keeps axes apart")
    return nn.Flatten(1)


def _same_neighbours(op: Op, scale: int) -> bool:
    """Whether the nearest neighbours are those of torch, `floor(place / scale)`."""
    rule = {
        "round_prefer_floor": lambda x: math.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: math.floor(x + 0.5),
        "floor": math.floor,
        "ceil": math.ceil,
    }.get(_nearest_mode(op))
    transform = {
        "half_pixel": lambda x: (x + 0.5) / scale - 0.5,
        "pytorch_half_pixel": lambda x: (x + 0.5) / scale - 0.5,
        "asymmetric": lambda x: x / scale,
    }.get(_transformation(op))
    if rule is None or transform is None:
        return False
    places = range(scale, 3 * scale)  # inside, where nothing is clipped
    return all(rule(transform(place)) == place // scale for place in places)


def _transformation(op: Op) -> str:
    return str(op.get("coordinate_transformation_mode", "asymmetric" if op.type == "Upsample" else "half_pixel"))


def _nearest_mode(op: Op) -> str:
    return str(op.get("nearest_mode", "floor" if op.type == "Upsample" else "round_prefer_floor"))


def _check_resize(op: Op, name: str, scales: Tensor | None) -> None:
    """Refuse what torch's layer would compute otherwise."""
    how = f"coordinate_transformation_mode={_transformation(op)}"
    if op.get("antialias", 0):
        raise Unsupported("antialias=1")
    if op.get("axes") is not None or op.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported("axes, or a keep_aspect_ratio_policy: export it with one scale or size per axis")
    if name != "nearest":
        if _transformation(op) not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
            raise Unsupported(f"{how}: expected half_pixel or align_corners")
        return
    if scales is None or not len(scales):
        if (_transformation(op), _nearest_mode(op)) != ("asymmetric", "floor"):
            raise Unsupported(f"nearest neighbours for a size, {how}: expected asymmetric, with nearest_mode=floor")
        return
    if not bool((scales == scales.round()).all()):
        raise Unsupported("nearest neighbours for a scale that is no whole number: libraries disagree on them")
    if not all(_same_neighbours(op, int(scale)) for scale in scales):
        raise Unsupported(f"nearest_mode={_nearest_mode(op)}, {how}: other neighbours than floor(place / scale)")


def _resize(op: Op) -> Any:
    mode = {"nearest": "nearest", "linear": {3: "linear", 4: "bilinear", 5: "trilinear"}.get(op.rank(), "")}
    name = mode.get(op.get("mode", "nearest"))
    if not name:
        raise Unsupported(f"mode {op.get('mode')}")
    places = (1, None) if op.type == "Upsample" else (2, 3)
    scales = op.optional(places[0])  # type: ignore[arg-type]
    sizes = op.optional(places[1]) if places[1] is not None else None
    corners = _transformation(op) == "align_corners"
    options: dict[str, Any] = {} if name == "nearest" else {"align_corners": corners}
    _check_resize(op, name, scales)
    if sizes is not None and len(sizes):
        return nn.Upsample(size=tuple(sizes[2:].tolist()), mode=name, **options)
    if scales is None or not bool((scales[:2] == 1).all()):
        raise Unsupported("it also scales batch or channels")
    return nn.Upsample(scale_factor=tuple(scales[2:].tolist()), mode=name, **options)


def _prelu(op: Op) -> nn.Module:
    slope = op.constant(1, "slope")
    sizes = (1,) * (op.rank() - slope.dim()) + tuple(slope.shape)
    if any(size != 1 for axis, size in enumerate(sizes) if axis != 1):
        raise Unsupported(f"a slope {tuple(slope.shape)} that is neither one number nor one per channel")
    return _loaded(nn.PReLU(slope.numel()), slope.flatten(), None)


def _selu(op: Op) -> nn.Module:
    if abs(op.get("alpha", 1.6732632) - 1.6732632) > 1e-5 or abs(op.get("gamma", 1.0507010) - 1.0507010) > 1e-5:
        raise Unsupported("alpha or gamma other than those of self-normalizing nets")
    return nn.SELU()


def _swish(op: Op) -> nn.Module:
    if op.get("alpha", 1.0) != 1.0:
        raise Unsupported("alpha other than 1")
    return nn.SiLU()


LAYERS: dict[str, Callable[[Op], Any]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "Relu": lambda op: nn.ReLU(),
    "LeakyRelu": lambda op: nn.LeakyReLU(op.get("alpha", 0.01)),
    "PRelu": _prelu,
    "Clip": _clip,
    "Sigmoid": lambda op: nn.Sigmoid(),
    "Tanh": lambda op: nn.Tanh(),
    "Elu": lambda op: nn.ELU(op.get("alpha", 1.0)),
    "Selu": _selu,
    "Softplus": lambda op: nn.Softplus(),
    "Mish": lambda op: nn.Mish(),
    "HardSwish": lambda op: nn.Hardswish(),
    "HardSigmoid": _hard_sigmoid,
    "Gelu": lambda op: nn.GELU(op.get("approximate", "none")),
    "Swish": _swish,
    "Softmax": _softmax(nn.Softmax),
    "LogSoftmax": _softmax(nn.LogSoftmax),
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    "MaxPool": _pool(_MAX),
    "AveragePool": _pool(_AVERAGE),
    "GlobalAveragePool": _global("Avg"),
    "GlobalMaxPool": _global("Max"),
    "Flatten": _flatten,
    "Dropout": lambda op: nn.Dropout(),
    "Identity": lambda op: nn.Identity(),
    "Resize": _resize,
    "Upsample": _resize,
}


def _integers(op: Op, place: int, name: str) -> tuple[int, ...] | None:
    """Axes or sizes: an attribute in older versions, an input in newer ones."""
    value = op.get(name)
    if value is not None:
        return tuple(value)
    constant = op.optional(place)
    return None if constant is None else tuple(constant.flatten().tolist())


def _reshape(op: Op) -> Layer:
    if op.known[1] is None:
        return lambda x, sizes: x.reshape(*sizes)
    sizes = list(op.constant(1, "shape").tolist())
    if op.known[0] is not None:  # a weight
        return lambda x: x.reshape(sizes)

    def reshape(x: Any) -> Any:
        own = [x.shape[place] if size == 0 else size for place, size in enumerate(sizes)]
        if op.batch is not None and sizes and sizes[0] == op.batch:
            own[0] = x.shape[0]  # exported for one batch size
        return x.reshape(*own)

    return reshape


def _expand(op: Op) -> Layer:
    if op.known[1] is None:
        return lambda x, sizes: x.expand(*sizes)
    sizes = tuple(op.constant(1, "shape").tolist())
    if op.known[0] is not None:
        return lambda x: x.expand(torch.broadcast_shapes(x.shape, sizes))
    if len(sizes) > op.rank():
        raise Unsupported("it puts axes before the batch")
    sizes = (1,) * (op.rank() - len(sizes)) + sizes
    if sizes[0] not in (1, op.batch):
        raise Unsupported("it repeats samples of the batch")
    own = (-1, *(-1 if size == 1 else size for size in sizes[1:]))
    return lambda x: x.expand(*own)


def _transpose(op: Op) -> Layer:
    order = op.get("perm") or tuple(reversed(range(op.rank())))
    return lambda x: x.permute(*order)


def _squeeze(op: Op) -> Layer:
    axes = _integers(op, 1, "axes")
    if axes is None or op.batch_axis in [axis % op.rank() for axis in axes]:
        raise Unsupported("without axes, or of the batch")
    return lambda x: x.squeeze(tuple(axes)) if len(axes) > 1 else x.squeeze(axes[0])


def _new_axes(op: Op) -> list[int]:
    """Of Unsqueeze, as they are in its output."""
    axes = _integers(op, 1, "axes") or ()
    if any(axis < 0 for axis in axes):
        axes = tuple(axis % (op.rank() + len(axes)) for axis in axes)
    return sorted(axes)


def _unsqueeze(op: Op) -> Layer:
    axes = _new_axes(op)

    def unsqueeze(x: Any) -> Any:
        for axis in axes:
            x = x.unsqueeze(axis)
        return x

    return unsqueeze


def _gather(op: Op) -> Layer:
    index, axis = op.constant(1, "index"), op.get("axis", 0)
    if op.known[0] is not None:
        return lambda x: x[(slice(None),) * (axis % x.dim()) + (index,)]
    axis %= op.rank()
    if axis == op.batch_axis:
        raise Unsupported("it picks samples of the batch")
    picked: Any = int(index) if not index.dim() else index.tolist()
    place = (slice(None),) * axis + (picked,)
    return lambda x: x[place]


def _slice(op: Op) -> Layer:
    starts = _integers(op, 1, "starts") or ()
    ends = _integers(op, 2, "ends") or ()
    axes = _integers(op, 3, "axes") or tuple(range(len(starts)))
    steps = _integers(op, 4, "steps") or (1,) * len(starts)
    place: list[Any] = [slice(None)] * op.rank()
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise Unsupported("a negative step")
        place[axis] = slice(start, end if end < 1 << 31 else None, step)
    if op.known[0] is None and place[op.batch_axis] != slice(None):
        raise Unsupported("it picks samples of the batch")
    chosen = tuple(place)
    return lambda x: x[chosen]


def _split(op: Op) -> Layer:
    axis, sizes = op.get("axis", 0) % op.rank(), _integers(op, 1, "split")
    if axis == op.batch_axis:
        raise Unsupported("it splits the batch")
    if len(op.outputs) == 1:
        return lambda x: x
    if sizes is None:
        number = len(op.outputs)
        return lambda x: torch.chunk(x, number, axis)
    return lambda x: torch.split(x, list(sizes), axis)


def _concat(op: Op) -> Layer:
    axis = op.get("axis")
    if any(value is None for value in op.known) and (axis if axis >= 0 else axis % op.rank()) == op.batch_axis:
        raise Unsupported("it joins batches")
    return lambda *parts: torch.cat(parts, axis)


def _pad(op: Op) -> Layer:
    if op.get("mode", "constant") != "constant" or op.has(3):
        raise Unsupported(f"mode {op.get('mode')}, or with axes")
    pads = _integers(op, 1, "pads") or ()
    value = op.optional(2) if op.has(2) else op.get("value")
    axes = len(pads) // 2
    if pads[0] or pads[axes]:
        raise Unsupported("it pads the batch")
    # From torch's point of view: the last axis first, both ends together.
    own = [size for axis in reversed(range(axes)) for size in (pads[axis], pads[axes + axis])]
    return lambda x: F.pad(x, own, value=0.0 if value is None else float(value))


def _reduce(function: Callable[..., Any]) -> Callable[[Op], Layer]:
    def make(op: Op) -> Layer:
        axes, keep = _integers(op, 1, "axes"), bool(op.get("keepdims", 1))
        if op.known[0] is None and (axes is None or any(axis % op.rank() == op.batch_axis for axis in axes)):
            raise Unsupported("it runs over the batch")
        return lambda x: function(x, axes, keep)

    return make


def _cast(op: Op) -> Layer:
    kinds = {1: torch.float32, 11: torch.float64, 6: torch.int32, 7: torch.int64}
    kind = kinds.get(op.get("to"))
    if kind is None:
        raise Unsupported(f"to data type {op.get('to')}: half precision and others are not converted")
    if op.known[0] is not None:
        return lambda x: x.to(kind)
    if not kind.is_floating_point:
        raise Unsupported("of the data to integers")
    return lambda x: x.to(kind)


def _extremum(function: Callable[..., Any], option: str) -> Callable[[Op], Layer]:
    """Of two values; with a number, as torch's exporter writes a clamp at one end."""

    def make(op: Op) -> Layer:
        if len(op.inputs) == 1:
            return lambda x: x
        if len(op.inputs) > 2:
            raise Unsupported("of more than two values")
        constants = [value for value in op.known if value is not None]
        if len(constants) == 1 and constants[0].numel() == 1:
            limits = {option: float(constants[0])}
            return lambda x: torch.clamp(x, **limits)
        if constants:
            raise Unsupported("with a constant of several numbers")
        return function

    return make


def _sum(op: Op) -> Layer:
    return lambda *values: reduce(operator.add, values)


OPERATIONS: dict[str, Callable[[Op], Layer]] = {
    "Reshape": _reshape,
    "Expand": _expand,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Pad": _pad,
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "Cast": _cast,
    "Add": lambda op: operator.add,
    "Sub": lambda op: operator.sub,
    "Mul": lambda op: operator.mul,
    "Div": lambda op: operator.truediv,
    "Pow": lambda op: operator.pow,
    "Neg": lambda op: operator.neg,
    "Sum": _sum,
    "Max": _extremum(torch.maximum, "min"),
    "Min": _extremum(torch.minimum, "max"),
    "MatMul": lambda op: torch.matmul,
    "Sqrt": lambda op: torch.sqrt,
    "Exp": lambda op: torch.exp,
    "Erf": lambda op: torch.erf,
    "Abs": lambda op: torch.abs,
    "Identity": lambda op: lambda x: x,
    "ConstantOfShape": lambda op: lambda sizes: torch.full(tuple(sizes.tolist()), float(op.get("value", [0.0])[0])),
}


def _shape(op: Op) -> Layer:
    places = range(op.rank())[op.get("start", 0) : op.get("end")]
    return lambda x: tuple(x.shape[place] for place in places)


def _gather_sizes(op: Op) -> Layer:
    index = op.constant(1, "index").tolist()
    if isinstance(index, list):
        return lambda sizes: tuple(sizes[place] for place in index)
    return lambda sizes: sizes[index]


def _concat_sizes(op: Op) -> Layer:
    known = [None if value is None else tuple(value.reshape(-1).tolist()) for value in op.known]

    def concat(*sizes: Any) -> tuple[Any, ...]:
        given = iter(sizes)
        parts: list[Any] = []
        for part in known:
            parts += next(given) if part is None else part
        return tuple(parts)

    return concat


def _slice_sizes(op: Op) -> Layer:
    starts, ends = _integers(op, 1, "starts") or (0,), _integers(op, 2, "ends") or (1 << 31,)
    return lambda sizes: sizes[starts[0] : ends[0]]


def _arithmetic(function: Callable[[Any, Any], Any]) -> Callable[[Op], Layer]:
    """Of numbers, or of tuples, number by number."""

    def make(op: Op) -> Layer:
        known = [None if value is None else value.reshape(-1).tolist() for value in op.known]

        def apply(*sizes: Any) -> Any:
            given = iter(sizes)
            values = [next(given) if value is None else value for value in known]
            is_tuple = any(isinstance(value, tuple) for value in values)
            lists = [value if isinstance(value, tuple | list) else (value,) for value in values]
            length = max(map(len, lists))
            left, right = (tuple(value) * length if len(value) == 1 else value for value in lists)
            results = tuple(function(a, b) for a, b in zip(left, right, strict=True))
            return results if is_tuple else results[0]

        return apply

    return make


SIZES: dict[str, Callable[[Op], Layer]] = {
    "Shape": _shape,
    "Gather": _gather_sizes,
    "Unsqueeze": lambda op: lambda size: (size,),
    "Squeeze": lambda op: lambda sizes: sizes[0],
    "Concat": _concat_sizes,
    "Slice": _slice_sizes,
    "Cast": lambda op: lambda sizes: sizes,
    "Identity": lambda op: lambda sizes: sizes,
    "Mul": _arithmetic(operator.mul),
    "Div": _arithmetic(operator.floordiv),
    "Add": _arithmetic(operator.add),
    "Sub": _arithmetic(operator.sub),
}


def batch_axis_after(op: Op) -> int:
    """Where the batch is in the outputs of a node.

    Raises:
        Unsupported: it is not the first axis of what treats its axes as batch, channels and space.
    """
    axis = op.batch_axis
    if op.type == "Transpose":
        order = op.get("perm") or tuple(reversed(range(op.rank())))
        return list(order).index(axis)
    if op.type == "Gather" and not op.constant(1, "index").dim():
        return axis - (op.get("axis", 0) % op.rank() < axis)
    if op.type == "Squeeze":
        return axis - sum(place % op.rank() < axis for place in _integers(op, 1, "axes") or ())
    if op.type == "Unsqueeze":
        for place in _new_axes(op):
            axis += place <= axis
        return axis
    if axis and (op.type in LAYERS or op.type in ("Reshape", "Expand", "Pad", "MatMul")):
        raise Unsupported(f"the batch is axis {axis} of its input")
    if op.type in ("ReduceMean", "ReduceSum", "ReduceMax") and not op.get("keepdims", 1):
        return axis - sum(place % op.rank() < axis for place in _integers(op, 1, "axes") or ())
    return axis
