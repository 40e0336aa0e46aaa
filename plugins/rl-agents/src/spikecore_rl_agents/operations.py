"""Operations and energy of a decision, against the ordinary net of the same layers.

A layer whose inputs are all 0 or 1 accumulates: one AC per spike and connection. Any other multiplies: one MAC per
connection and step, also where its input is 0. The ordinary net runs once with as many MACs as the layer has.

    E = e_MAC · MACs + e_AC · ACs        e_MAC = 4.6 pJ, e_AC = 0.9 pJ      (32-bit float, 45 nm)

Neurons' own operations, receptive fields and memory are not counted. Source of the numbers: Horowitz, Computing's
Energy Problem (ISSCC 2014); the formula: Rathi and Roy, DIET-SNN (2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.analysis import neuron_layers
from spikecore_rl_agents.policy import Policy
from spikecore_rl_agents.population import PopulationReadout

MAC_PJ, AC_PJ = 4.6, 0.9


@dataclass(frozen=True)
class LayerOperations:
    """What one layer does for one decision, on average.

    Args:
        name: of the layer.
        macs, acs: operations.
        dense_macs: of the ordinary net's layer.
    """

    name: str
    macs: float
    acs: float
    dense_macs: float

    @property
    def energy_nj(self) -> float:
        """Nanojoule."""
        return (MAC_PJ * self.macs + AC_PJ * self.acs) / 1000

    @property
    def dense_energy_nj(self) -> float:
        """Nanojoule of the ordinary net's layer."""
        return MAC_PJ * self.dense_macs / 1000


@dataclass(frozen=True)
class Operations:
    """What a policy does for one decision, on average.

    Args:
        layers: with weights.
        spikes: of all spiking neurons.
    """

    layers: tuple[LayerOperations, ...]
    spikes: float

    @property
    def energy_nj(self) -> float:
        """Nanojoule."""
        return sum(layer.energy_nj for layer in self.layers)

    @property
    def dense_energy_nj(self) -> float:
        """Nanojoule of the ordinary net of the same layers."""
        return sum(layer.dense_energy_nj for layer in self.layers)


def count_operations(policy: Policy, observations: Tensor) -> Operations:
    """Count what the policy does for these observations `[B, *shape]`; nothing about it changes."""
    num_decisions = len(observations)
    generator = torch.Generator(policy.device).manual_seed(0)
    with torch.no_grad():
        sequence = policy.encode(observations, generator)
        counts = _Counts(num_steps=len(sequence))
        with _counting(policy.net, counts):
            policy.net(sequence)
    layers = [
        LayerOperations(name, *(value / num_decisions for value in totals)) for name, totals in counts.layers.items()
    ]
    return Operations(tuple(layers), counts.spikes / num_decisions)


@dataclass
class _Counts:
    num_steps: int
    layers: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """Layer → MACs, ACs, and the MACs of the ordinary net's layer."""
    spikes: float = 0.0

    def weights_hook(self, name: str) -> Any:
        """Counts the operations of a layer with weights."""

        def count(
            module: nn.Linear | nn.Conv2d | PopulationReadout, inputs: tuple[Tensor, ...], output: Tensor
        ) -> None:
            x = inputs[0].detach()
            per_output = module.weight[0].numel()
            connections = float(output.numel()) * per_output
            is_binary = bool(((x == 0) | (x == 1)).all())
            done = (0.0, connections * float(x.mean())) if is_binary else (connections, 0.0)
            before = self.layers.get(name, (0.0, 0.0, 0.0))
            now = (*done, connections / self.num_steps)
            macs, acs, dense = (old + new for old, new in zip(before, now, strict=True))
            self.layers[name] = macs, acs, dense

        return count

    def spikes_hook(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Counts the spikes of a layer of neurons."""
        self.spikes += float((output.detach() != 0).sum())


@contextmanager
def _counting(net: nn.Module, counts: _Counts) -> Iterator[None]:
    handles = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | PopulationReadout):
            handles.append(module.register_forward_hook(counts.weights_hook(name)))
    for layer in neuron_layers(net).values():
        # Activations of an ordinary net are no spikes.
        if getattr(getattr(layer, "capabilities", None), "spiking", True):
            handles.append(layer.register_forward_hook(counts.spikes_hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
