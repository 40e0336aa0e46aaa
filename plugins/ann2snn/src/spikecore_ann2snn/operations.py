"""What the calls of a trained net are, for conversion: one table from modules, functions and methods to roles.

A spiking net of rates carries a value as the mean of a sequence. Whatever is linear in the data therefore stays; a
rectifier becomes a neuron; everything else needs a counterpart of its own, or is refused by name.

    role         calls                                                  in a net of rates
    relu         ReLU, ReLU6, Hardtanh(0, ...), clamp(min=0)            a neuron
    leaky_relu   LeakyReLU                                              refused, a neuron, or one per sign, by option
    quantized    QCFS                                                   a neuron with the learned threshold
    norm         batch norm in evaluation mode                          folded into the layer before it, or affine
    max_pool     max pooling                                            of the running sums, or average pooling
    dropout      dropout                                                removed
    synapse      linear layers and convolutions                         kept
    linear       average pooling, upsampling, sums, means               kept
    shape        flatten, reshape, concat, indexing                     kept
    size         numbers read from shapes                               kept
    product      products and quotients                                 kept where only one factor depends on the data
    smooth       softmax, GELU, SiLU, layer norm, attention, ...        temporal differences alone
    state        neurons and everything else with state                 refused
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spikecore import nn as snn
from spikecore.nn import NetGraph, NetNode
from spikecore_ann2snn.qcfs import QCFS

Role = Literal[
    "relu",
    "leaky_relu",
    "quantized",
    "norm",
    "max_pool",
    "dropout",
    "synapse",
    "linear",
    "shape",
    "size",
    "product",
    "smooth",
    "state",
]

SYNAPSES = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_MAX_POOLS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
)
_LINEAR_MODULES = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.Upsample,
    nn.UpsamplingNearest2d,
    nn.UpsamplingBilinear2d,
    nn.ZeroPad1d,
    nn.ZeroPad2d,
    nn.ZeroPad3d,
    nn.ReflectionPad1d,
    nn.ReflectionPad2d,
    nn.ReplicationPad1d,
    nn.ReplicationPad2d,
    nn.Identity,
)
_SHAPE_MODULES = (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)
_SMOOTH_MODULES = (
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.Softplus,
    nn.Mish,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.PReLU,
    nn.Softmax,
    nn.LogSoftmax,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.MultiheadAttention,
)
MODULES: dict[type[nn.Module], Role] = {
    **dict.fromkeys((nn.ReLU, nn.ReLU6, snn.ReLU), "relu"),
    **dict.fromkeys((nn.LeakyReLU,), "leaky_relu"),
    **dict.fromkeys((QCFS,), "quantized"),
    **dict.fromkeys(BATCH_NORMS, "norm"),
    **dict.fromkeys(_MAX_POOLS, "max_pool"),
    **dict.fromkeys(DROPOUTS, "dropout"),
    **dict.fromkeys(SYNAPSES, "synapse"),
    **dict.fromkeys(_LINEAR_MODULES, "linear"),
    **dict.fromkeys(_SHAPE_MODULES, "shape"),
    **dict.fromkeys(_SMOOTH_MODULES, "smooth"),
}
"""A subclass that keeps the `forward` of its base has the base's role."""

FUNCTIONS: dict[Any, Role] = {
    **dict.fromkeys((F.relu, F.relu_, F.relu6, torch.relu, torch.relu_), "relu"),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), "leaky_relu"),
    **dict.fromkeys((F.batch_norm,), "norm"),
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout, F.alpha_dropout), "dropout"),
    **dict.fromkeys((F.linear, F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d), "synapse"),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), "synapse"),
    **dict.fromkeys(
        (F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d), "max_pool"
    ),
    **dict.fromkeys((F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d), "max_pool"),
    **dict.fromkeys((torch.adaptive_max_pool1d, torch.amax), "max_pool"),
    **dict.fromkeys(
        (
            F.avg_pool1d,
            F.avg_pool2d,
            F.avg_pool3d,
            torch.avg_pool1d,
            F.adaptive_avg_pool1d,
            F.adaptive_avg_pool2d,
            F.adaptive_avg_pool3d,
            torch.adaptive_avg_pool1d,
            F.interpolate,
            F.pad,
            operator.add,
            operator.sub,
            operator.neg,
            operator.pos,
            operator.iadd,
            operator.isub,
            torch.add,
            torch.sub,
            torch.neg,
            torch.mean,
            torch.sum,
        ),
        "linear",
    ),
    **dict.fromkeys(
        (
            torch.flatten,
            torch.reshape,
            torch.permute,
            torch.transpose,
            torch.squeeze,
            torch.unsqueeze,
            torch.cat,
            torch.concat,
            torch.concatenate,
            torch.stack,
            torch.chunk,
            torch.split,
            torch.unbind,
            torch.flip,
            torch.roll,
            torch.movedim,
            torch.narrow,
            torch.clone,
            F.pixel_shuffle,
            F.pixel_unshuffle,
            operator.getitem,
        ),
        "shape",
    ),
    **dict.fromkeys(
        (
            operator.mul,
            operator.truediv,
            operator.matmul,
            operator.imul,
            operator.itruediv,
            operator.pow,
            torch.mul,
            torch.div,
            torch.matmul,
            torch.bmm,
            torch.baddbmm,
            torch.einsum,
        ),
        "product",
    ),
    **dict.fromkeys(
        (
            F.gelu,
            F.silu,
            F.elu,
            F.selu,
            F.celu,
            F.softplus,
            F.mish,
            F.hardswish,
            F.hardsigmoid,
            F.softmax,
            F.log_softmax,
            F.layer_norm,
            F.rms_norm,
            F.group_norm,
            F.normalize,
            F.scaled_dot_product_attention,
            torch.softmax,
            torch.log_softmax,
            torch.sigmoid,
            torch.tanh,
            torch.exp,
            torch.erf,
            torch.sqrt,
            torch.rsqrt,
            torch.pow,
            torch.square,
            torch.abs,
            torch.maximum,
            torch.minimum,
            F.sigmoid,
            F.tanh,
            F.prelu,
        ),
        "smooth",
    ),
}
"""Functions whose arguments do not matter; the others are in `_by_arguments`."""

METHODS: dict[str, Role] = {
    **dict.fromkeys(("relu", "relu_"), "relu"),
    **dict.fromkeys(("add", "sub", "add_", "sub_", "neg", "mean", "sum"), "linear"),
    **dict.fromkeys(
        (
            "flatten",
            "unflatten",
            "reshape",
            "view",
            "permute",
            "transpose",
            "t",
            "squeeze",
            "unsqueeze",
            "contiguous",
            "expand",
            "expand_as",
            "repeat",
            "chunk",
            "split",
            "unbind",
            "flip",
            "roll",
            "movedim",
            "narrow",
            "clone",
            "type_as",
            "float",
            "to",
        ),
        "shape",
    ),
    **dict.fromkeys(("mul", "div", "mul_", "div_", "matmul", "bmm"), "product"),
    **dict.fromkeys(
        ("softmax", "log_softmax", "sigmoid", "tanh", "exp", "erf", "sqrt", "rsqrt", "pow", "square", "abs"), "smooth"
    ),
    **dict.fromkeys(("amax",), "max_pool"),
}
_CLAMPS = (torch.clamp, torch.clamp_min, torch.clip, F.hardtanh, F.hardtanh_, "clamp", "clamp_min", "clip", "clamp_")
IN_PLACE: dict[Any, Any] = {
    F.relu_: F.relu,
    torch.relu_: torch.relu,
    F.leaky_relu_: F.leaky_relu,
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    "relu_": "relu",
    "add_": "add",
    "sub_": "sub",
    "mul_": "mul",
    "div_": "div",
    "clamp_": "clamp",
    F.hardtanh_: F.hardtanh,
}
"""What writes into its first argument → the same with a result of its own."""


def declared() -> tuple[str, ...]:
    """Qualified names of all that becomes something else, for `capabilities.layers`."""
    changed = ("relu", "leaky_relu", "quantized", "norm", "max_pool", "dropout", "smooth")
    modules = [f"torch.nn.{kind.__name__}" for kind, role in MODULES.items() if role in changed and _is_torch(kind)]
    functions = [f"{_home(key)}.{key.__name__}" for key, role in FUNCTIONS.items() if role in changed]
    methods = [f"torch.Tensor.{name}" for name, role in METHODS.items() if role in changed]
    clamps = [f"torch.Tensor.{key}" if isinstance(key, str) else f"{_home(key)}.{key.__name__}" for key in _CLAMPS]
    own = ["spikecore.nn.ReLU", "spikecore_ann2snn.QCFS", "torch.nn.Hardtanh"]
    products = ["_operator.mul", "_operator.truediv", "_operator.matmul", "torch.matmul", "torch.bmm", "torch.mul"]
    return tuple(dict.fromkeys([*modules, *functions, *methods, *clamps, *own, *products]))


def _is_torch(kind: type) -> bool:
    return kind.__module__.startswith("torch.")


def _home(function: Any) -> str:
    for home in (F, torch):
        if getattr(home, function.__name__, None) is function:
            return home.__name__
    return str(function.__module__)


def role_of(node: NetNode, dependent: frozenset[str]) -> Role | None:
    """What a call is; None where no conversion knows it.

    Args:
        node: of a graph that was traced with an example.
        dependent: the nodes whose tensors depend on the inputs.
    """
    if node.name not in dependent:
        return "size"
    role = _role(node)
    if role == "product":
        return _role_of_product(node, dependent)
    if role == "synapse" and node.kind != "module" and len(_factors(node, dependent)) > 1:
        return "smooth"  # its weight depends on the data
    if _loses_fractions(node):
        return None
    return role


def _role(node: NetNode) -> Role | None:
    if node.kind == "module":
        return _role_of_module(node.module)
    if node.target in _CLAMPS:
        return "relu" if bounds(node) is not None else None
    if node.kind == "method":
        return METHODS.get(str(node.target))
    return FUNCTIONS.get(node.target)


def _role_of_module(module: nn.Module | None) -> Role | None:
    if isinstance(module, nn.Hardtanh) and not isinstance(module, nn.ReLU6):
        return "relu" if module.min_val == 0 < module.max_val else None
    for kind in type(module).__mro__:
        role = MODULES.get(kind)
        if role is not None:
            return role
    return "state" if isinstance(module, snn.Stateful) else None


def _role_of_product(node: NetNode, dependent: frozenset[str]) -> Role | None:
    """A product with constants is linear; a quotient only in its dividend, and where it is not rounded."""
    name = getattr(node.target, "__name__", str(node.target))
    divisor = node.kwargs.get("other", node.args[1] if len(node.args) > 1 else None)
    divides_by_data = "div" in name and getattr(divisor, "name", None) in dependent
    if node.kwargs.get("rounding_mode") is not None:
        return None
    if len(_factors(node, dependent)) > 1 or divides_by_data or "pow" in name:
        return "smooth"
    return "linear"


def _factors(node: NetNode, dependent: frozenset[str]) -> list[str]:
    """The arguments that depend on the data, also within lists; one that stands twice is there twice."""
    return [name for name in _references((*node.args, *node.kwargs.values())) if name in dependent]


def _references(value: Any) -> list[str]:
    if isinstance(value, snn.Ref):
        return [value.name]
    return [name for part in value for name in _references(part)] if isinstance(value, tuple | list) else []


def _loses_fractions(node: NetNode) -> bool:
    """Whether it casts to whole numbers."""
    kinds = [value for value in (*node.args, *node.kwargs.values()) if isinstance(value, torch.dtype)]
    return node.target == "to" and any(not kind.is_floating_point for kind in kinds)


def bounds(node: NetNode) -> tuple[float, float] | None:
    """`(0, ceiling)` of a rectifier, the ceiling perhaps infinite; None where a clamp does not begin at 0."""
    if node.kind == "module":
        module = node.module
        return (0.0, float(module.max_val)) if isinstance(module, nn.Hardtanh) else (0.0, math.inf)
    if node.target is F.relu6:
        return 0.0, 6.0
    if node.target not in _CLAMPS:
        return 0.0, math.inf
    name = getattr(node.target, "__name__", str(node.target))
    names = ("min_val", "max_val") if name.startswith("hardtanh") else ("min", "max")
    defaults: tuple[Any, Any] = (-1.0, 1.0) if name.startswith("hardtanh") else (None, None)
    given = list(node.args[1:3]) + [None] * (3 - len(node.args))
    low = node.kwargs.get(names[0], given[0] if given[0] is not None else defaults[0])
    high = node.kwargs.get(names[1], given[1] if given[1] is not None else defaults[1])
    if not isinstance(low, int | float) or low != 0 or not isinstance(high, int | float | None):
        return None
    return 0.0, math.inf if high is None else float(high)


def slope_of(node: NetNode) -> float | None:
    """The negative slope of a leaky ReLU; None where it is computed."""
    if node.kind == "module":
        return float(node.module.negative_slope)  # type: ignore[union-attr, arg-type]
    slope = node.kwargs.get("negative_slope", node.args[1] if len(node.args) > 1 else 0.01)
    return float(slope) if isinstance(slope, int | float) else None


def dependent_nodes(graph: NetGraph) -> frozenset[str]:
    """Names of the nodes whose values are, or hold, tensors that depend on the inputs."""
    names: set[str] = set()
    for node in graph:
        is_number = node.is_call and node.shape is None and node.value is not None
        if node.kind == "input" or (not is_number and any(name in names for name in node.inputs)):
            names.add(node.name)
    # A size is read from a tensor, yet does not depend on its values.
    return frozenset(names)


def function_of(node: NetNode) -> Callable[..., Any]:
    """What a function or method node calls."""
    if node.kind == "method":
        method: Callable[..., Any] = getattr(Tensor, str(node.target))
        return method
    assert callable(node.target)
    return node.target
