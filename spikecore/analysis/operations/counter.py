"""Counting while a net runs: every product that torch is asked for, and what neurons put out.

A dispatch mode sees each convolution and matrix product below all wrappers, so functional calls, attention, blocks and
layers with derived weights are counted as they are computed. Under it neurons run on a backend that torch can see, and
no product runs by events: the numbers are those of the net, not of a shortcut that some backend takes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spikecore.analysis.operations.layers import Access, LayerOperations, Operations
from spikecore.analysis.operations.products import Product, count_of, is_uncounted
from spikecore.analysis.operations.static import connection_sparsity, footprint
from spikecore.errors import OptionError, ShapeError, StateError
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.nn.block import NormedNeuron
from spikecore.nn.state import Stateful, reset_state
from spikecore.torch_internals import DispatchMode, operator_name, storage_key

RECTIFIERS = (nn.ReLU, nn.ReLU6)
WEIGHT_PLACES = {"aten::addmm": 2, "aten::mm": 1}
"""Operator → the argument that is the weight, where a linear layer calls it: with a bias, and without one."""


@torch.no_grad()
def count_operations(net: nn.Module, x: Tensor, *, has_time: bool = True) -> Operations:
    """What a net does for these inputs, per sample, in evaluation mode. A copy runs; the net does not change.

    Args:
        net: in either step mode; in single-step mode it is fed step by step.
        x: `[T, B, ...]`; `[B, ...]` for an ordinary net, with `has_time=False`.
        has_time: whether the first axis of x is time.

    Returns:
        Means over the samples.

    Raises:
        ShapeError: x has no step or no sample.

    Example:
        >>> from spikecore.nn import IF
        >>> net = nn.Sequential(nn.Linear(2, 3), IF(), nn.Linear(3, 4))
        >>> _ = [nn.init.ones_(parameter) for parameter in net.parameters()]
        >>> operations = count_operations(net, torch.ones(5, 1, 2))
        >>> operations["0"].acs, operations["2"].acs, operations.total("spikes")
        (30.0, 60.0, 15.0)
    """
    if x.dim() < 1 + has_time or 0 in x.shape[: 1 + has_time]:
        form = "[T, B, ...] with T and B" if has_time else "[B, ...] with B"
        raise ShapeError(f"operations are counted of a batch {form} at least 1, got {tuple(x.shape)}")
    twin = copy.deepcopy(net).eval()
    reset_state(twin)
    with OperationCounter(twin) as counter:
        if not has_time:
            twin(x)
        elif any(getattr(part, "step_mode", "multi") == "single" for part in twin.modules()):
            for current in x:
                twin(current)
        else:
            twin(x)
    num_steps, num_samples = (x.shape[0], x.shape[1]) if has_time else (1, x.shape[0])
    return counter.operations(num_samples, num_steps)


@dataclass
class _Tally:
    """Sums over all calls of a layer."""

    macs: float = 0.0
    effective_macs: float = 0.0
    acs: float = 0.0
    dense: float = 0.0
    input_reads: float = 0.0
    output_reads: float = 0.0
    output_writes: float = 0.0
    num_weights: int = 0
    num_inputs: int = 0
    num_outputs: int = 0
    num_neurons: float = 0.0
    num_states: float = 0.0
    updates: float = 0.0
    active: float = 0.0

    def add(self, product: Product, is_spikes: bool) -> None:
        """One more call of an operator."""
        self.dense += product.dense
        if is_spikes:
            # Each event is read once; each accumulate reads and writes the sum that it adds to.
            self.acs += product.synops
            self.input_reads += product.num_events
            self.output_reads += product.synops
            self.output_writes += product.synops
        else:
            # Each multiply-accumulate reads an input; the sum stays in a register and is written once.
            self.macs += product.dense
            self.effective_macs += product.synops
            self.input_reads += product.dense
            self.output_writes += product.num_outputs
        self.num_weights = max(self.num_weights, product.num_weights)
        self.num_inputs = max(self.num_inputs, product.num_inputs)
        self.num_outputs = max(self.num_outputs, product.num_outputs)


class OperationCounter(DispatchMode):  # type: ignore[no-untyped-call]
    """Counts inside its `with` block what a net does; `count_operations` does that for one batch.

    Args:
        net: the net that is called inside the block.
        is_spikes: `(layer, by_value) -> bool`: whether the input of a layer counts as spikes, where its values alone do
            not tell it: behind neurons whose spikes are not 1. By default `by_value`: all values are -1, 0 and 1.

    Raises:
        StateError: the block was entered twice.

    Example:
        >>> net = nn.Linear(2, 3)
        >>> with OperationCounter(net) as counter:
        ...     _ = net(torch.rand(4, 2))
        >>> counter.operations(num_samples=4).total("macs")
        6.0
    """

    def __init__(self, net: nn.Module, is_spikes: Callable[[str, bool], bool] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.net = net
        self._is_spikes = is_spikes or (lambda layer, by_value: by_value)
        self._tallies: dict[str, _Tally] = {}
        self._uncounted: dict[str, None] = {}
        self._stack: list[tuple[str, nn.Module]] = []
        self._handles: list[RemovableHandle] = []
        self._weights: set[int] = set()
        self._had_fastpath = True

    def __enter__(self) -> OperationCounter:
        if self._handles:
            raise StateError("this counter is already counting: leave its `with` block first, or make another one")
        # The net holds its parameters inside the block, so that no other tensor gets their storage.
        self._weights = {storage_key(tensor) for tensor in (*self.net.parameters(), *self.net.buffers())}
        for name, module in self.net.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._entering(name)))
            self._handles.append(module.register_forward_hook(self._leaving(name), always_call=True))
        # In evaluation mode torch computes attention in one fused operator, which hides its products.
        self._had_fastpath = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch.backends.mha.set_fastpath_enabled(self._had_fastpath)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._stack.clear()

    def operations(self, num_samples: int, num_steps: int = 1) -> Operations:
        """What was counted so far, per sample.

        Args:
            num_samples: that were run.
            num_steps: T of each.

        Raises:
            OptionError: there are none.
        """
        if num_samples < 1 or num_steps < 1:
            raise OptionError(f"operations are counted of samples with steps, got {num_samples} and {num_steps}")
        layers = []
        for name, module in self.net.named_modules():
            own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
            tally = self._tallies.get(name)
            if tally is not None or own:
                layers.append(_layer(name or "net", module, own, tally or _Tally(), num_samples))
        return Operations(
            layers=tuple(layers),
            num_samples=num_samples,
            num_steps=num_steps,
            connection_sparsity=connection_sparsity(self.net),
            footprint=footprint(self.net),
            uncounted=tuple(self._uncounted),
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = operator_name(func)
        count = count_of(name)
        if count is None:
            if is_uncounted(name):
                self._uncounted[name] = None
        else:
            layer, module = self._stack[-1] if self._stack else ("", self.net)
            # A weight that is computed for the call (quantized, masked) is no parameter of the net. In a linear layer
            # its place among the arguments tells that it is the weight.
            place = WEIGHT_PLACES.get(name) if isinstance(module, nn.Linear) else None
            derived = None if place is None else storage_key(args[place])

            def is_weight(tensor: Tensor) -> bool:
                key = storage_key(tensor)
                return key in self._weights or key == derived

            with torch.no_grad():
                product = count(args, out, is_weight)
            self._tally(layer).add(product, self._is_spikes(layer, product.is_spiking))
        return out

    def _tally(self, name: str) -> _Tally:
        return self._tallies.setdefault(name, _Tally())

    def _entering(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: Any) -> None:
            self._stack.append((name, module))

        return enter

    def _leaving(self, name: str) -> Callable[..., None]:
        def leave(module: nn.Module, args: Any, out: Any) -> None:
            self._stack.pop()
            if isinstance(out, Tensor) and args and isinstance(args[0], Tensor):
                self._look(name, module, args[0], out)

        return leave

    @torch.no_grad()
    def _look(self, name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        """What a neuron layer put out, and the state that it kept."""
        if isinstance(module, NormedNeuron):
            return  # its neuron is a layer of its own
        is_neuron = isinstance(getattr(module, "capabilities", None), NeuronCapabilities)
        if not (is_neuron or isinstance(module, (Stateful, *RECTIFIERS))):
            return
        tally = self._tally(name)
        has_steps = getattr(module, "step_mode", "single") == "multi"
        if isinstance(module, Stateful) and x.dim() > has_steps:
            step = x[0] if has_steps else x
            numbers = sum(math.prod(form[0]) for form in module.state_forms(step).values())
            tally.num_states = numbers / max(len(step), 1)
        if is_neuron or isinstance(module, RECTIFIERS):
            tally.updates += out.numel()
            tally.active += int(torch.count_nonzero(out))
            tally.num_neurons = float(math.prod(out.shape[1 + has_steps :]))


def _layer(name: str, module: nn.Module, own: int, tally: _Tally, num_samples: int) -> LayerOperations:
    capabilities = getattr(module, "capabilities", None)
    is_neuron = isinstance(capabilities, NeuronCapabilities)
    is_spiking = is_neuron and bool(getattr(capabilities, "spiking", False))
    is_rectifier = isinstance(module, RECTIFIERS) or (is_neuron and not tally.num_states)
    active, updates = tally.active / num_samples, tally.updates / num_samples
    memory: dict[str, Access] = {}
    if tally.dense:
        performed = (tally.macs + tally.acs) / num_samples
        memory["weights"] = Access(performed, 0.0, tally.num_weights)
        memory["inputs"] = Access(tally.input_reads / num_samples, 0.0, tally.num_inputs / num_samples)
        reads, writes = tally.output_reads / num_samples, tally.output_writes / num_samples
        memory["outputs"] = Access(reads, writes, tally.num_outputs / num_samples)
    if updates and tally.num_states and tally.num_neurons:
        per_update = tally.num_states / tally.num_neurons
        memory["state"] = Access(updates * per_update, updates * per_update, tally.num_states)
    return LayerOperations(
        name=name,
        kind=type(module).__name__,
        num_parameters=own,
        macs=tally.macs / num_samples,
        effective_macs=tally.effective_macs / num_samples,
        acs=tally.acs / num_samples,
        dense=tally.dense / num_samples,
        memory=memory,
        num_neurons=tally.num_neurons,
        num_states=tally.num_states,
        updates=updates,
        spikes=active if is_spiking else None,
        is_activation=is_spiking or is_rectifier,
        active=active,
    )
