"""Which values of a net are sequences, and the layers that would read one wrongly without an error.

`torch.nn.BatchNorm1d` in front of a neuron in multi-step mode takes B for the channels, `torch.nn.Flatten` takes T for
the batch, and a neuron in single-step mode takes it too. Where the sizes happen to fit, torch says nothing.

    x [T, B, C] ── BatchNorm1d ── y ── Linear ── z ── LIF, multi     x, y and z keep the same first axes: refused
    x [B, C] ── BatchNorm1d ── y ── y.unsqueeze(0) ── LIF, multi     unsqueeze makes a time axis: y is no sequence

The rule: values that a chain of axis-keeping calls connects have the same first axes. A group of such values must not
hold the input or output of a module in multi-step mode beside that of a plain layer, or of one in single-step mode.
`trace_net` says who calls whom on what, so containers within containers, layers that `forward` calls by name and the
functions of `functional_layers`, such as `torch.nn.functional.batch_norm`, are alike. A net that holds nothing to
confuse is not traced at all.

What the rule does not see: calls within a `forward` that cannot be traced (it branches on values or shapes), within a
module that is one node of the graph (`fold_time`, a module with state), and on a value whose chain to a neuron has a
call that may change the first axes (`permute`, `reshape`, a function of the user's that fx wraps).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from spikecore.errors import NetTraceError, ShapeError
from spikecore.nn.functional_layers import FUNCTIONS, may_call_one
from spikecore.nn.graph import NetGraph
from spikecore.nn.node import NetNode, Ref, function_name
from spikecore.nn.tracer import is_leaf
from spikecore.nn.tracing import trace_net
from spikecore.torch_internals import NormBase

EXACT: dict[int, tuple[type[nn.Module], ...]] = {
    3: (nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
    4: (
        *(nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
        nn.BatchNorm2d,
    ),
    5: (
        *(nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d),
        nn.BatchNorm3d,
    ),
}
"""Rank of a batch → layers that take just this rank (torch also takes one sample without the batch axis)."""

_SILENT = (
    *(kind for kinds in EXACT.values() for kind in kinds),
    *(NormBase, nn.GroupNorm, nn.LocalResponseNorm, nn.Upsample, nn.ChannelShuffle, nn.Softmax2d),
    *(nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d, nn.LPPool1d, nn.LPPool2d, nn.FractionalMaxPool2d),
    *(nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout),
)
"""Layers that count axes from the batch."""

_ELEMENTWISE = frozenset(
    (
        *("abs", "add", "add_", "iadd", "sub", "sub_", "isub", "mul", "mul_", "imul", "div", "div_"),
        *("truediv", "neg", "pow", "square", "sqrt", "exp", "log", "where", "lerp", "maximum", "minimum"),
        *("relu", "relu_", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid"),
        *("tanh", "hardtanh", "hardswish", "hardsigmoid", "softplus", "softsign", "logsigmoid", "dropout"),
        *("clamp", "clamp_", "clamp_min", "clamp_max", "contiguous", "to", "float", "half", "double"),
        *("bfloat16", "type", "type_as", "detach", "clone", "requires_grad_", "linear", "layer_norm"),
    )
)
"""Functions and methods whose result keeps the first axes of what they are given."""

_CHECKED = "_checked_form"
"""Attribute of a net: the form it had when it was last looked at."""


def refuse_confused_axes(net: nn.Module) -> None:
    """Refuse a net in which a layer would take time for the batch or the batch for the channels, without an error.

    Looked at once for each form of the net: again when a module, at any depth, was replaced or its step mode changed.
    What a trace cannot follow is looked at in the parts that it can.

    Raises:
        ShapeError: names the layers, and what to do.
    """
    form = _form(net)
    if vars(net).get(_CHECKED) == form:
        return
    if _may_confuse(net):
        for path, graph in _graphs(net, ""):
            for group in _groups(graph, path):
                group.check(type(net).__name__)
    vars(net)[_CHECKED] = form


def _form(net: nn.Module) -> list[object]:
    """Every module and its step mode. On the path of each call, hence no `named_modules`: 0.2 us for each module."""
    form: list[object] = [net.training]  # `forward` may branch on it
    stack: list[nn.Module | None] = [net]
    while stack:
        module = stack.pop()
        if module is None:
            continue
        form.append(module)
        form.append(module.__dict__.get("step_mode"))  # one that is a property reads that of a part
        stack.extend(module._modules.values())
    return form


def _may_confuse(net: nn.Module) -> bool:
    modes: set[object] = set()
    has_plain = False
    for part in _parts(net):
        modes.add(getattr(part, "step_mode", None))
        has_plain = has_plain or _takes_no_sequence(part)
    if "multi" not in modes:
        return False
    return has_plain or "single" in modes or any(may_call_one(module) for module in _traced_modules(net))


def _traced_modules(module: nn.Module) -> Iterator[nn.Module]:
    """The modules whose `forward` a trace looks into, at any depth."""
    if not is_leaf(module):
        yield module
    elif type(module).forward is not nn.Module.forward:  # ModuleList and ModuleDict have none, and hold others
        return
    for child in module.children():
        yield from _traced_modules(child)


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """What is called as one, at any depth."""
    has_no_forward = type(module).forward is nn.Module.forward  # ModuleList, ModuleDict
    if is_leaf(module) and not has_no_forward:
        yield module
        return
    for child in module.children():
        yield from _parts(child)


def _graphs(module: nn.Module, path: str) -> Iterator[tuple[str, NetGraph]]:
    """The graph of a module; where there is none, those of its parts that have one. Each with its path in the net."""
    try:
        graph = trace_net(module)
    except NetTraceError:
        pass
    else:
        yield path, graph
        return
    if isinstance(module, nn.Sequential):  # who follows whom is known, whatever the parts do
        parts = [part for part in module.modules() if not (isinstance(part, nn.Sequential) or is_leaf(part))]
        yield path, trace_net(module, leaves=[type(part) for part in parts])
    for name, child in module.named_children():
        if not is_leaf(child) or type(child).forward is nn.Module.forward:
            yield from _graphs(child, f"{path}.{name}".lstrip("."))


@dataclass
class _Group:
    """Values with the same first axes, as the places of the modules that take or give them."""

    multi: list[str] = field(default_factory=list)
    single: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)

    def add(self, node: NetNode, path: str) -> None:
        """Note the call of a module, or of a functional layer; `path` is that of the graph in the net."""
        module = node.module
        if module is None:
            self.functions.append(f"{node.operation}()" + (f" at {node.place}" if node.place else ""))
            return
        place = where(module, f"{path}.{node.target}".strip("."))
        step_mode = getattr(module, "step_mode", None)
        if step_mode == "multi":
            self.multi.append(place)
        elif step_mode == "single":
            self.single.append(place)
        elif _takes_no_sequence(module):
            self.plain.append(place)

    def check(self, net: str) -> None:
        if self.multi and self.single:
            raise ShapeError(
                f"{net} mixes step modes: {self.multi[0]} is in 'multi' and takes [T, B, ...], {self.single[0]} is in "
                "'single' and would take T for the batch: call set_step_mode(net, 'multi') or "
                "set_step_mode(net, 'single')"
            )
        if self.multi and self.plain:
            layers = ", ".join(dict.fromkeys(self.plain))
            raise ShapeError(
                f"{net} is in step mode 'multi', and {layers} would be given a sequence [T, B, ...] for a batch: "
                "use the layer of the same name of spikecore.nn, wrap it in fold_time(module), or "
                "set_step_mode(net, 'single')"
            )
        if self.multi and self.functions:
            calls = ", ".join(dict.fromkeys(self.functions))
            raise ShapeError(
                f"{net} is in step mode 'multi', and {calls} would be given a sequence [T, B, ...] for a batch: "
                "use the layer of spikecore.nn in place of the function, fold time around the call "
                "(x.flatten(0, 1) before, y.unflatten(0, (T, B)) behind), or set_step_mode(net, 'single')"
            )


def _groups(graph: NetGraph, path: str) -> list[_Group]:
    # Union-find: from every value, `parents` leads to the one value that stands for its group.
    parents: dict[str, str] = {node.name: node.name for node in graph}

    def root(name: str) -> str:
        while parents[name] != name:
            name = parents[name]
        return name

    for node in graph:
        for name in _same_axes(graph, node):
            parents[root(name)] = root(node.name)
    groups: dict[str, _Group] = {}
    for node in graph:
        if node.inputs and (node.module is not None or _is_functional_layer(node)):
            groups.setdefault(root(node.name), _Group()).add(node, path)
    return [*groups.values()]


def _same_axes(graph: NetGraph, node: NetNode) -> list[str]:
    """Names of the arguments that have the first axes of the result."""
    if node.module is not None:
        return [*node.inputs[:1]] if _keeps_axes(node.module) else []
    if node.kind not in ("function", "method"):
        return []
    if _is_functional_layer(node):
        x = node.args[0] if node.args else node.kwargs.get("input")
        return [x.name] if isinstance(x, Ref) else []
    name = str(node.target) if node.kind == "method" else function_name(node.target)
    if name not in _ELEMENTWISE:
        return []
    return [argument for argument in node.inputs if graph[argument].kind != "attribute"]  # weights are broadcast


def _is_functional_layer(node: NetNode) -> bool:
    return node.kind == "function" and node.target in FUNCTIONS


def _keeps_axes(module: nn.Module) -> bool:
    if hasattr(module, "step_mode") or _takes_no_sequence(module):
        return True
    is_reshaping = isinstance(module, nn.Flatten | nn.Unflatten)  # they may fold time on purpose
    return type(module).__module__.startswith("torch.nn.") and not is_reshaping


def _takes_no_sequence(layer: nn.Module) -> bool:
    """Whether it counts axes from the batch and has no step mode."""
    if hasattr(layer, "step_mode"):
        return False
    if isinstance(layer, nn.Flatten):
        return layer.start_dim == 1
    if isinstance(layer, nn.PReLU):
        return layer.num_parameters > 1
    return isinstance(layer, _SILENT)


def where(module: nn.Module, name: Any) -> str:
    """`LIF at '2.0'`, for messages."""
    return type(module).__name__ + (f" at {name!r}" if name else "")
