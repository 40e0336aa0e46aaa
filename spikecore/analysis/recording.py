"""Records the output of every neuron layer of a net: the reference for comparisons with a deployed net."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.errors import ConversionError, ShapeError
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.nn.block import NormedNeuron
from spikecore.nn.layers.recurrent import Recurrent
from spikecore.nn.state import reset_state


def neuron_layers(net: nn.Module) -> dict[str, nn.Module]:
    """Qualified name → layer, for every neuron and block in `net`, in the net's order.

    A block (`ConvBNNeuron`, `LinearBNNeuron`) is one layer, under its own name; nothing inside a layer is another one.
    """
    layers: dict[str, nn.Module] = {}
    for name, module in net.named_modules():
        is_layer = isinstance(module, NormedNeuron) or isinstance(
            getattr(module, "capabilities", None), NeuronCapabilities
        )
        is_inside_one = any(name.startswith(f"{outer}.") for outer in layers if outer)
        if is_layer and not is_inside_one:
            layers[name] = module
    return layers


@torch.no_grad()
def record_spikes(net: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a net over a sequence, in evaluation mode, and keep the output of every neuron layer.

    A copy of the net runs; the net itself, its state, mode, hooks and `recorded` do not change.

    Args:
        net: in either step mode; in single-step mode its copy is fed step by step, from the initial state.
        x: `[T, B, ...]`, T at least 1.

    Returns:
        The net's output `[T, B, ...]`, and layer name → what it put out, `[T, B, ...]`, in the order in which the
        layers are called. The k-th call of a layer is `name#k`, from the second on; the calls of a layer inside a
        recurrent container, one per step, are one sequence.

    Raises:
        ShapeError: x has no step, or the net's output is not one tensor.
        ConversionError: a step calls other layers than the step before.

    Example:
        >>> from spikecore.nn import IF
        >>> out, spikes = record_spikes(nn.Sequential(IF(), IF(v_threshold=2.0)), torch.ones(4, 1, 1))
        >>> {name: layer.flatten().tolist() for name, layer in spikes.items()}
        {'0': [1.0, 1.0, 1.0, 1.0], '1': [0.0, 1.0, 0.0, 1.0]}
    """
    if x.dim() < 2 or not x.shape[0]:
        raise ShapeError(f"a net's spikes are recorded over a sequence [T, B, ...] with T >= 1, got {tuple(x.shape)}")
    twin = copy.deepcopy(net).eval()
    reset_state(twin)
    calls: list[tuple[str, Tensor]] = []
    for name, layer in neuron_layers(twin).items():
        layer.register_forward_hook(partial(_keep, calls, name or "net"))  # as the graph of a net calls it
    if any(getattr(part, "step_mode", "multi") == "single" for part in twin.modules()):
        return _step_by_step(twin, x, calls)
    out = _one_tensor(twin(x))
    in_loops = [name for name, part in twin.named_modules() if isinstance(part, Recurrent)]
    whole = [(name, call) for name, call in calls if not _is_inside(name, in_loops)]
    spikes = _number_calls(whole)
    for name in dict.fromkeys(name for name, _ in calls if _is_inside(name, in_loops)):
        spikes[name] = torch.cat([call for other, call in calls if other == name])
    order = dict.fromkeys(_number_calls(calls))
    return out, {name: spikes[name] for name in order if name in spikes}


def _step_by_step(net: nn.Module, x: Tensor, calls: list[tuple[str, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    outs, steps = [], []
    for current in x:
        calls.clear()
        outs.append(_one_tensor(net(current)))
        steps.append(_number_calls(calls))
        if list(steps[-1]) != list(steps[0]):
            raise ConversionError(
                f"step {len(steps) - 1} calls the layers {', '.join(steps[-1])}, step 0 {', '.join(steps[0])}: "
                "expected a net that calls the same layers at every step"
            )
    return torch.stack(outs), {name: torch.stack([step[name] for step in steps]) for name in steps[0]}


def _keep(calls: list[tuple[str, Tensor]], name: str, module: nn.Module, args: Any, out: Tensor) -> None:
    calls.append((name, out.detach().clone()))  # a layer after it may write to it in place


def _one_tensor(out: Any) -> Tensor:
    if not isinstance(out, Tensor):
        raise ShapeError(f"expected a net that returns one tensor [T, B, ...], got {type(out).__name__}")
    return out


def _is_inside(name: str, containers: Sequence[str]) -> bool:
    return any(not container or name.startswith(f"{container}.") for container in containers)


def _number_calls(calls: Sequence[tuple[str, Tensor]]) -> dict[str, Tensor]:
    counts: Counter[str] = Counter()
    numbered = {}
    for name, out in calls:
        counts[name] += 1
        numbered[name if counts[name] == 1 else f"{name}#{counts[name]}"] = out
    return numbered
