"""Activation checkpointing of nets with state: less memory in training, for a second forward pass.

    checkpoint_layers(net)                 # layer by layer, each over the whole T: the same bits
    checkpoint_time(net, 4)                # 4 chunks of time, one after the other

`checkpoint_layers` keeps the input of each part of the net and runs the part again in the backward pass. A part sees
the whole sequence both times, so its statistics, outputs and gradients are the same to the last bit; running statistics
move in the first run alone. With `packed_spikes` inputs that are spikes are kept as bits.

`checkpoint_time` keeps the state between chunks of steps. Statistics over the batch would be those of a chunk, so it
refuses nets with batch norms in training mode.

Both change how modules run, not what they are: names, `state_dict` and copies stay as they were.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spikecore.errors import OptionError, StateError
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.nn.block import CONVOLUTIONS, NormedNeuron
from spikecore.nn.functional import functional
from spikecore.nn.layers.recurrent import Recurrent
from spikecore.torch_internals import BatchNorm

SYNAPSES = (nn.Linear, *CONVOLUTIONS)


def checkpoint_layers(net: nn.Module, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Let parts of a net run again in the backward pass, in place of keeping what they computed.

    Outside of training nothing changes: without a gradient a part runs as always.

    Args:
        net: any net; whole sequences only (a part refuses `streaming` and single steps in its backward pass).
        names: of the modules; None chooses: a chain (`nn.Sequential`) with neurons is cut before each layer with
            weights, and blocks, recurrent containers and neurons outside of chains are parts of their own.

    Returns:
        What is checkpointed: names of modules, `name[2:5]` for a stretch of a chain.

    Raises:
        OptionError: there is no such module, it is inside another one, or there is nothing to checkpoint.
        StateError: in a call: parts were added to a chain, or removed, since it was cut.

    Example:
        >>> from spikecore.nn import LIF
        >>> net = nn.Sequential(nn.Linear(4, 8), LIF(), nn.Linear(8, 3), LIF())
        >>> checkpoint_layers(net)
        ('[0:2]', '[2:4]')
    """
    if names is None:
        chosen = _choose(net)
    else:
        modules = dict(net.named_modules())
        for name in names:
            if name not in modules:
                raise OptionError(f"checkpoint_layers: the net has no module {name!r}")
            if any(_is_inside(name, other) for other in names):
                raise OptionError(f"checkpoint_layers: {name!r} is inside another module that is named")
        chosen = dict.fromkeys(names, ())
    if not chosen:
        raise OptionError("checkpoint_layers: the net has no neurons; name its parts, as in names=['layer1', 'layer2']")
    checkpointed = []
    for name, cuts in chosen.items():
        module = net.get_submodule(name)
        # A bound method is copied along with its module, and then bound to the copy.
        if cuts:
            setattr(module, _CUTS, cuts)
            module.forward = types.MethodType(_chain_forward, module)
            checkpointed += [f"{name}[{first}:{last}]" for first, last in pairwise(cuts)]
        else:
            module.forward = types.MethodType(_forward, module)
            checkpointed.append(name)
    return tuple(checkpointed)


def checkpoint_time(net: nn.Module, num_chunks: int) -> None:
    """Let a net or a neuron layer keep its state at `num_chunks` moments alone, and run the steps between them again.

    Gradients of weights are sums over the chunks: equal but for the order of the sum.

    Args:
        net: takes `[T, B, ...]` in multi-step mode.
        num_chunks: 1 or more; T need not be a multiple of it.

    Raises:
        OptionError: less than one chunk.
        StateError: in a call: a batch norm takes its statistics from the batch, and a chunk has others.
    """
    if num_chunks < 1:
        raise OptionError(f"checkpoint_time takes at least one chunk, got {num_chunks}")
    setattr(net, _CHUNKS, num_chunks)
    net.forward = types.MethodType(_time_forward, net)


def run_all(net: nn.Module) -> None:
    """Undo `checkpoint_layers` and `checkpoint_time`."""
    for module in net.modules():
        method = module.__dict__.get("forward")
        if isinstance(method, types.MethodType) and method.__func__ in (_forward, _chain_forward, _time_forward):
            del module.__dict__["forward"]


_CUTS, _CHUNKS = "checkpoint_cuts", "checkpoint_chunks"


def _choose(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name → where a chain is cut; () for a module as a whole."""
    chosen: dict[str, tuple[int, ...]] = {}
    for name, module in net.named_modules():
        if any(_is_inside(name, other) for other in chosen):
            continue
        if _is_chain_with_neurons(module):
            parts = list(module)  # not `children()`, which leaves out a part at its second place
            starts = [place for place, part in enumerate(parts) if _has_weights(part)]
            cuts = sorted({0, *starts, len(parts)})
            chosen[name] = tuple(cuts)
        elif _is_neuron(module):
            chosen[name] = ()
    return chosen


def _is_inside(name: str, other: str) -> bool:
    """Is the module of this name a part of the other one, at any depth? "" is the net itself."""
    return name != other and (not other or name.startswith(f"{other}."))


def _is_chain_with_neurons(module: nn.Module) -> TypeGuard[nn.Sequential]:
    is_chain = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    return is_chain and any(_is_neuron(child) for child in module.children())


def _is_neuron(module: nn.Module) -> bool:
    is_neuron = isinstance(getattr(module, "capabilities", None), NeuronCapabilities)
    return is_neuron or isinstance(module, NormedNeuron | Recurrent)


def _has_weights(module: nn.Module) -> bool:
    return any(isinstance(part, SYNAPSES) for part in module.modules())


def _own_forward(module: nn.Module) -> Callable[..., Any]:
    """The `forward` of the module's class."""
    forward: Callable[..., Any] = types.MethodType(type(module).forward, module)
    return forward


def _forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return _run_again_later(_own_forward(self), [self], *args, **kwargs)


def _chain_forward(self: nn.Sequential, x: Tensor) -> Tensor:
    children = list(self)
    cuts: tuple[int, ...] = getattr(self, _CUTS)
    if cuts[-1] != len(children):
        raise StateError(
            f"checkpoint_layers cut a chain of {cuts[-1]} parts, and it has {len(children)} now: call "
            "checkpoint_layers(net) again after parts were added or removed"
        )
    for first, last in pairwise(cuts):
        part = children[first:last]

        def run(x: Tensor, part: list[nn.Module] = part) -> Tensor:
            for child in part:
                x = child(x)
            return x

        x = _run_again_later(run, part, x)
    return x


def _run_again_later(run: Callable[..., Any], modules: Sequence[nn.Module], *args: Any, **kwargs: Any) -> Any:
    """Run now, and once more in the backward pass where there is one."""
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return run(*args, **kwargs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _SparedStatistics(modules)

    return checkpoint(run, *args, use_reentrant=False, context_fn=contexts, **kwargs)


class _SparedStatistics(AbstractContextManager[None]):
    """`_spare_statistics`, as often as it is entered: a graph that is kept goes backward many times."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._inside: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        spared = _spare_statistics(self._modules)
        spared.__enter__()
        self._inside.append(spared)

    def __exit__(self, *error: Any) -> None:
        self._inside.pop().__exit__(*error)


@contextmanager
def _spare_statistics(modules: Sequence[nn.Module]) -> Iterator[None]:
    """The running statistics of norms stay as they are: the second run moves copies."""
    own: list[tuple[nn.Module, dict[str, Tensor]]] = []
    for module in modules:
        norms = [part for part in module.modules() if isinstance(part, BatchNorm) and part.training]
        own += [(norm, dict(norm.named_buffers(recurse=False))) for norm in norms]
    try:
        for norm, buffers in own:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer.clone())
        yield
    finally:
        for norm, buffers in own:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


class _Unwrapped(threading.local):
    """The nets that run as their class says in this thread, though `checkpoint_time` gave them another `forward`."""

    def __init__(self) -> None:
        self.nets: set[nn.Module] = set()


_unwrapped = _Unwrapped()


def _time_forward(self: nn.Module, x: Tensor) -> Tensor:
    if not torch.is_grad_enabled() or self in _unwrapped.nets:
        result: Tensor = _own_forward(self)(x)
        return result
    for name, module in self.named_modules():
        if isinstance(module, BatchNorm) and (module.training or module.running_mean is None):
            raise StateError(
                f"checkpoint_time: {name or type(module).__name__!r} ({type(module).__name__}) takes its statistics "
                "from the batch, over all steps; those of a chunk of time are others. Use checkpoint_layers(net), "
                "which runs whole sequences, or checkpoint_time on the neurons alone"
            )
    step, init_state = functional(self)

    def run(*given: Any) -> Any:
        with _unwrap(self):  # `functional` calls the net itself
            return step(*given)

    with _unwrap(self):
        state = init_state(x[:1])
    own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
    outs = []
    for chunk in x.chunk(getattr(self, _CHUNKS)):
        out, state = checkpoint(run, own, chunk, state, use_reentrant=False)
        outs.append(out)
    return torch.cat(outs)


@contextmanager
def _unwrap(net: nn.Module) -> Iterator[None]:
    """Inside, calls of the net in this thread run its own `forward`; other threads may be anywhere in the same net."""
    _unwrapped.nets.add(net)
    try:
        yield
    finally:
        _unwrapped.nets.discard(net)
