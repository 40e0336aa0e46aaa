"""A trained net made ready for conversion: a copy in evaluation mode, taken apart, without in-place operations.

* blocks (`ConvBNNeuron`, `LinearBNNeuron`), layers that `fold_time` wraps, and `nn.TransformerEncoder` are replaced by
  modules that call the same parts one by one, so that every part is a call of its own;
* a call that writes into its input gets a result of its own, and what read the overwritten value reads that result;
* the graph is traced with the example, so shapes and sizes are known.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from spikecore.errors import ConversionError
from spikecore.nn import ConvBNNeuron, FoldTime, LinearBNNeuron, NetGraph, NetNode, Ref, set_step_mode, trace_net
from spikecore_ann2snn.operations import BATCH_NORMS, DROPOUTS, IN_PLACE, Role, dependent_nodes, role_of
from spikecore_ann2snn.samples import Samples, find_samples

NUM_SAMPLES = 2
"""In the batch whose shapes the graph knows, at least."""


class Parts(nn.Sequential):
    """The parts of a module that was one call, one after the other."""


class EncoderLayer(nn.Module):
    """`nn.TransformerEncoderLayer` in evaluation mode, call by call; it holds the layer's own parts.

    norm first:  x + A(norm1(x)), then x + F(norm2(x))        else:  norm1(x + A(x)), then norm2(x + F(x))
    """

    def __init__(self, layer: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        self.self_attn = layer.self_attn
        self.linear1, self.linear2 = layer.linear1, layer.linear2
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        self.norm_first = layer.norm_first
        self.activation = layer.activation

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, D]` → `[B, N, D]`."""
        if self.norm_first:
            x = x + self._attended(self.norm1(x))
            return x + self._fed(self.norm2(x))
        x = self.norm1(x + self._attended(x))
        out: Tensor = self.norm2(x + self._fed(x))
        return out

    def _attended(self, x: Tensor) -> Tensor:
        attended: Tensor = self.self_attn(x, x, x, need_weights=False)[0]
        return attended

    def _fed(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(self.activation(self.linear1(x)))
        return out


@dataclass(frozen=True, eq=False)
class Prepared:
    """A net ready for conversion.

    Args:
        graph: of the copy; converters may write into its modules.
        dependent: names of the nodes that depend on the inputs.
        taken_apart: calls of the given net whose parts stand in the graph in their place → what they were.
        samples: where they lie in each value; None without an example.
    """

    graph: NetGraph
    dependent: frozenset[str]
    taken_apart: Mapping[str, str]
    samples: Samples | None = None

    @classmethod
    def of(cls, model: nn.Module, example: Tensor | None = None, keep_computed: bool = False) -> Prepared:
        """The copy, and its graph.

        Args:
            model: takes a batch `[B, ...]`; it is left as it was.
            example: such a batch; None where shapes are not needed.
            keep_computed: leave weight norm, spectral norm and pruning in the copy: nothing is written into weights.

        Raises:
            ConversionError: weights are of half precision, or an in-place call cannot be resolved.
            NetTraceError: the net cannot be traced.
        """
        halves = [name for name, value in model.named_parameters() if value.dtype in (torch.float16, torch.bfloat16)]
        if halves:
            raise ConversionError(
                f"{halves[0]} is of half precision: thresholds are found in float32; convert net.float()"
            )
        _check_dtype(model, example)
        _check_finite(model)
        net = _copy(model)
        if not keep_computed:
            _make_plain(net)
        set_step_mode(net, "single")
        root = _parts(net)
        if root is not None:
            # A graph calls a net that is one call "net".
            own = Parts()
            own.add_module("net", net)
            net = own
        taken_apart = _take_apart(net)
        if example is not None:
            # More than one sample: `x.squeeze()` would take the batch away, and shapes would hide which axis is which.
            rows = max(len(example), NUM_SAMPLES)
            example = example.repeat(-(-rows // len(example)), *([1] * (example.dim() - 1)))[:rows]
        graph = _without_writes(trace_net(net) if example is None else trace_net(net, example))
        dependent = dependent_nodes(graph)
        samples = None if example is None else find_samples(graph, example, dependent)
        return cls(graph, dependent, taken_apart, samples)

    def role(self, node: NetNode) -> Role | None:
        """What a call of the graph is; None where no conversion knows it, or it does not treat samples one by one."""
        return None if self.problem(node) else role_of(node, self.dependent)

    def problem(self, node: NetNode) -> str:
        """Why a call does not treat samples one by one; empty where it does."""
        return "" if self.samples is None else self.samples.problems.get(node.name, "")

    @cached_property
    def timed(self) -> frozenset[str]:
        """Names of the nodes whose tensors have time in the new net: also those that only the size of a batch shapes,
        such as a query that is expanded to it.
        """
        names: set[str] = set()
        for node in self.graph:
            if node.kind == "input" or any(name in names for name in node.inputs):
                names.add(node.name)
        return frozenset(name for name in names if self.graph[name].kind == "input" or self.graph[name].value is None)

    def has_batch_first(self, node: NetNode) -> bool:
        """Whether every input of a call that has time in the new net has the batch as its first axis."""
        assert self.samples is not None
        return all(self.samples.axes.get(name) == 0 for name in node.inputs if name in self.timed)

    def check(self) -> None:
        """Refuse what no net that folds time into the batch computes.

        Raises:
            ConversionError: a call does not treat samples one by one, or an output has not the batch first.
        """
        assert self.samples is not None
        if self.samples.problems:
            lines = [f"  {self.graph[name]}: {text}" for name, text in self.samples.problems.items()]
            raise ConversionError("the steps of all samples run as one batch, which changes:\n" + "\n".join(lines))
        self.check_outputs()

    def check_outputs(self) -> None:
        """The second half of `check`.

        Raises:
            ConversionError: an output has not the batch first.
        """
        axes = {} if self.samples is None else self.samples.axes
        for name in names_in(self.graph.output):
            if axes.get(name, 0) != 0:
                raise ConversionError(
                    f"the output {self.graph[name]} is {self.graph[name].shape}, and its first axis is not the batch: "
                    "return [B, ...]"
                )


def _copy(model: nn.Module) -> nn.Module:
    """In evaluation mode."""
    # torch refuses to copy a tensor that has been computed; such a weight is computed anew in the copy.
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, computed).eval()


def _make_plain(net: nn.Module) -> None:
    """Make weights plain parameters that weight norm, spectral norm or pruning compute in every call: what is written
    into a computed weight is lost with the next one.

    Args:
        net: in evaluation mode, in which spectral norm keeps its estimate.
    """
    for module in net.modules():
        if parametrize.is_parametrized(module):
            _leave_parametrized(module)
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]


def _leave_parametrized(module: nn.Module) -> None:
    """As `remove_parametrizations` does, which would take the weight from the given net too: copies share the class
    that has it.
    """
    names = [str(name) for name in module.parametrizations]  # type: ignore[union-attr]
    values = {name: getattr(module, name).detach().clone() for name in names}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def _check_finite(model: nn.Module) -> None:
    for name, value in model.named_parameters():
        if not bool(value.isfinite().all()):
            raise ConversionError(f"{name} holds NaN or infinity: give the net with the weights that it was trained to")


def _check_dtype(model: nn.Module, example: Tensor | None) -> None:
    kinds = {value.dtype for value in model.parameters() if value.is_floating_point()}
    if example is None or not kinds or example.dtype in kinds:
        return
    wanted = " or ".join(sorted(map(str, kinds)))
    bytes_too = " (bytes are often divided by 255 for training)" if not example.is_floating_point() else ""
    raise ConversionError(
        f"the inputs are {example.dtype}, the weights {wanted}: convert the inputs as for training{bytes_too}"
    )


def _take_apart(net: nn.Module) -> dict[str, str]:
    """Replace whatever hides several calls behind one; qualified name → class of what was there."""
    taken: dict[str, str] = {}
    made: dict[int, nn.Module | None] = {}
    # A module that stands at two places stays one: its weights are shared.
    for name, module in list(net.named_modules(remove_duplicate=False)):
        if id(module) not in made:
            made[id(module)] = _parts(module)
        parts = made[id(module)]
        if parts is None or not name:
            continue
        owner, _, own = name.rpartition(".")
        setattr(net.get_submodule(owner), own, parts)
        taken[name] = type(module).__name__
    return taken


def _parts(module: nn.Module) -> nn.Module | None:
    if isinstance(module, FoldTime):
        parts = Parts()
        parts.add_module("module", module.module)
        return parts
    if isinstance(module, ConvBNNeuron | LinearBNNeuron):
        parts = Parts()
        for part_name, part in module.named_children():
            parts.add_module(part_name, part)
        return parts
    if type(module) is nn.TransformerEncoderLayer and module.self_attn.batch_first:
        return EncoderLayer(module)
    if type(module) is nn.TransformerEncoder:
        parts = Parts()
        parts.add_module("layers", nn.Sequential(*module.layers))
        if module.norm is not None:
            parts.add_module("norm", module.norm)
        return parts
    return None


def _without_writes(graph: NetGraph) -> NetGraph:
    """Every call with a result of its own; what reads an overwritten value afterwards reads that result."""
    overwritten: dict[str, str] = {}
    nodes: list[NetNode] = []
    shared = _Shared()
    for index, node in enumerate(graph):
        is_inplace = node.is_inplace
        if overwritten:
            args = tuple(_renamed(value, overwritten) for value in node.args)
            kwargs = {key: _renamed(value, overwritten) for key, value in node.kwargs.items()}
            node = replace(node, args=args, kwargs=kwargs)
        if is_inplace and node.inputs:
            written = node.inputs[0]
            same, parts = shared.by(written)
            later = [name for user in graph.nodes[index + 1 :] for name in user.inputs] + names_in(graph.output)
            read = [name for name in later if overwritten.get(name, name) in parts]
            if read:
                raise ConversionError(
                    f"{node} writes into a view of {read[0]!r}, or into what that is a view of, which is read later: "
                    "leave out the in-place operation"
                )
            node = _pure(node)
            overwritten = {old: node.name if new in same else new for old, new in overwritten.items()}
            overwritten.update(dict.fromkeys(same, node.name))
        else:
            shared.add(node)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes), output=_renamed(graph.output, overwritten))


def _pure(node: NetNode) -> NetNode:
    if node.kind == "module":
        assert node.module is not None
        setattr(node.module, "inplace", False)  # noqa: B010  (nn.Module's __setattr__ is typed for tensors)
        return node
    kwargs = {key: value for key, value in node.kwargs.items() if key != "inplace"}
    target = IN_PLACE.get(node.target, node.target)
    result = replace(node, target=target, kwargs=kwargs)
    if result.is_inplace:
        raise ConversionError(f"{node} writes into its input, and has no form known here that does not: write one")
    return result


class _Shared:
    """Which values are one tensor under several names, or views of each other."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[str, bool]] = {}  # name → what it is a view of, and whether it is all of that

    def add(self, node: NetNode) -> None:
        """Take note of a call that returns its input, or a view of it."""
        if not node.is_call or not node.inputs:
            return
        is_same = isinstance(node.module, (nn.Identity, *DROPOUTS)) or node.target in _SAME
        name = getattr(node.target, "__name__", str(node.target))
        is_view = isinstance(node.module, nn.Flatten | nn.Unflatten) if node.kind == "module" else name in _VIEWS
        if is_same or is_view:
            self._of[node.name] = (node.inputs[0], is_same)

    def by(self, name: str) -> tuple[set[str], set[str]]:
        """The names of the same tensor, and those of its views and of what it is a view of."""
        tensor, memory = self._root(name, same_alone=True), self._root(name)
        names = {name, tensor, memory, *self._of}
        same = {other for other in names if self._root(other, same_alone=True) == tensor}
        return same, {other for other in names if self._root(other) == memory} - same

    def _root(self, name: str, same_alone: bool = False) -> str:
        while name in self._of and (self._of[name][1] or not same_alone):
            name = self._of[name][0]
        return name


_SAME = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, torch.dropout)
_VIEWS = frozenset(
    (
        *("view", "reshape", "flatten", "unflatten", "transpose", "swapaxes", "permute", "movedim", "t", "getitem"),
        *("chunk", "split", "unbind", "narrow", "select", "squeeze", "unsqueeze", "expand", "expand_as", "view_as"),
        *("contiguous", "to", "float", "double", "type_as"),  # perhaps
    )
)


def names_in(value: Any) -> list[str]:
    """Of all nodes that a net's output refers to."""
    if isinstance(value, Ref):
        return [value.name]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return [name for part in parts for name in names_in(part)]


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """`value` with the references inside renamed."""
    if isinstance(value, Ref):
        return Ref(names.get(value.name, value.name))
    if isinstance(value, tuple):
        parts = [_renamed(part, names) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [_renamed(part, names) for part in value]
    if isinstance(value, dict):
        return {key: _renamed(part, names) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(*(_renamed(part, names) for part in (value.start, value.stop, value.step)))
    return value


def fold_norms(given: Prepared) -> tuple[Prepared, dict[str, str]]:
    """Fold every batch norm into the layer before it, where that layer feeds the norm alone; writes into the copy.

        W' = W γ / sqrt(var + eps)        b' = (b - mean) γ / sqrt(var + eps) + β

    Returns:
        The net with an identity in the place of each folded norm; name of a norm → name of the layer that holds it.
    """
    graph, folded = given.graph, dict[str, str]()
    for node in graph.layers:
        if isinstance(node.module, BATCH_NORMS) and node.module.running_mean is None:
            raise ConversionError(f"{node} has no running statistics: it was made with track_running_stats=False")
        if given.role(node) != "norm" or node.kind != "module" or node.inputs[0] not in graph:
            continue
        before = graph[node.inputs[0]]
        is_plain = given.role(before) == "synapse" and before.kind == "module" and len(graph.users(before.name)) == 1
        norm, layer = node.module, before.module
        if not is_plain or _num_calls(graph, layer) > 1 or _num_calls(graph, norm) > 1 or not _follows_out(before):
            continue
        assert norm is not None
        assert layer is not None
        scale, shift = scale_and_shift(norm)
        _fold_into(layer, scale, shift)
        folded[node.name] = before.name
        owner, _, own = str(node.target).rpartition(".")
        graph.net.get_submodule(owner).add_module(own, nn.Identity())
    nodes = [
        replace(node, module=graph.net.get_submodule(str(node.target))) if node.name in folded else node
        for node in graph
    ]
    return replace(given, graph=replace(graph, nodes=tuple(nodes))), folded


def scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """What a batch norm does in evaluation mode: `x * scale + shift`, per channel."""
    with torch.no_grad():
        # In double precision: the weights are folded once, and read ever after.
        std = torch.sqrt(norm.running_var.double() + norm.eps)
        gain = torch.ones_like(std) if norm.weight is None else norm.weight.double()
        bias = torch.zeros_like(std) if norm.bias is None else norm.bias.double()
        scale = gain / std
        return scale, bias - norm.running_mean.double() * scale


def _fold_into(layer: Any, scale: Tensor, shift: Tensor) -> None:
    with torch.no_grad():
        weight = layer.weight
        if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            # [in, out / groups, ...]: the outputs of a group lie along axis 1 of that group's rows.
            rows = weight.double().unflatten(0, (layer.groups, -1))
            factor = scale.reshape(layer.groups, 1, -1, *([1] * (weight.dim() - 2)))
            folded = (rows * factor).flatten(0, 1)
        else:
            folded = weight.double() * scale.reshape(-1, *([1] * (weight.dim() - 1)))
        # Parameters of its own: another layer may share the old ones.
        layer.weight = nn.Parameter(folded.to(weight.dtype), requires_grad=weight.requires_grad)
        old = torch.zeros_like(shift) if layer.bias is None else layer.bias.double()
        bias = (old * scale + shift).to(weight.dtype)
        layer.bias = nn.Parameter(bias, requires_grad=(weight if layer.bias is None else layer.bias).requires_grad)


def _num_calls(graph: NetGraph, module: nn.Module | None) -> int:
    return sum(node.module is module for node in graph.layers)


def _follows_out(node: NetNode) -> bool:
    """Whether the norm's channels, along axis 1, are the layer's outputs: not so for a linear layer over tokens."""
    return not isinstance(node.module, nn.Linear) or node.shape is None or len(node.shape) == 2


class ChannelAffine(nn.Module):
    """`x * scale + shift` per channel along axis 1 of `[B, C, ...]`: a batch norm in evaluation mode."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(scale), nn.Parameter(shift)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, ...]` → the same shape."""
        shape = (1, -1, *([1] * (x.dim() - 2)))
        return x * self.scale.reshape(shape) + self.shift.reshape(shape)


def uses_functional_norm(node: NetNode) -> bool:
    """Whether a norm is a function, which holds no statistics of its own."""
    return node.target is F.batch_norm
