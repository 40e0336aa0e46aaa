"""A network → a net of spikecore that computes the same: layers of torch and `LoihiLIF`."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikecore.errors import ConversionError
from spikecore.nn import Conv2d, CubaLIF, Flatten, LateralRecurrent
from spikecore_deploy_lava.loihi_lif import LoihiLIF
from spikecore_deploy_lava.network import ALIGN, INPUT, Layer, Network
from spikecore_deploy_lava.start import start_after


@dataclass(frozen=True)
class Parts:
    """One layer as modules; the neuron is None for a readout."""

    weight: nn.Module
    neuron: nn.Module | None


def parts_of(network: Network, index: int, where: str) -> Parts:
    """The modules of a layer, in float32; in float64 for a network in floating point.

    Raises:
        ConversionError: it fires before spikes arrive, so that no net computes the same.
    """
    layer, population = network.layers[index], network.layers[index].population
    dtype = torch.float32 if network.model == "fixed_pt" else torch.float64
    if population is None:
        return Parts(_weight(layer, layer.bias, layer.unit, dtype), None)
    lag = network.lag(index)
    start, fires = start_after(population.v, layer.bias, population.dv, population.vth, lag, network.model)
    if fires:
        raise ConversionError(
            f"{where}: layer {index} ({layer.name!r}): its bias makes it fire in the {lag} steps before spikes arrive; "
            "a net has no such steps"
        )
    start = np.broadcast_to(start, layer.bias.shape)
    options: dict[str, Any] = {"backend": "torch"}
    if network.model == "floating_pt":
        if population.du != 1 and layer.bias.any():
            raise ConversionError(f"{where}: layer {index}: a bias beside a current in floating point is not supported")
        weight = _weight(layer, layer.bias, 1.0, dtype)
        neuron: nn.Module = CubaLIF(
            c_decay=1 - population.du,
            v_decay=1 - population.dv,
            v_threshold=population.vth,
            v_init=_one_or_many(start),
            fires="above",
            **options,
        )
        return Parts(weight, _looped(layer, neuron.double(), dtype))
    neuron = LoihiLIF(
        v_threshold=float(population.vth),
        du=int(population.du),
        dv=int(population.dv),
        bias=_one_or_many(layer.bias),
        v_init=_one_or_many(start / ALIGN),
        scale=1,
        **options,
    )
    return Parts(_weight(layer, None, 1.0, dtype), _looped(layer, neuron, dtype))


def _looped(layer: Layer, neuron: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The neuron, in its loop if it has one."""
    if layer.recurrent is None:
        return neuron
    loop = LateralRecurrent(neuron, len(layer.recurrent)).to(dtype)
    with torch.no_grad():
        loop.lateral.weight.copy_(torch.from_numpy(layer.recurrent))
    return loop.requires_grad_(False)


def _one_or_many(values: np.ndarray[Any, Any]) -> float | tuple[float, ...]:
    many = tuple(float(value) for value in values)
    return many[0] if len(set(many)) == 1 else many


def _weight(layer: Layer, bias: np.ndarray[Any, Any] | None, unit: float, dtype: torch.dtype) -> nn.Module:
    synapses = layer.synapses
    values = synapses.weight
    made: nn.Module
    if synapses.is_kernel:
        made = Conv2d(
            values.shape[1] * synapses.groups,
            values.shape[0],
            values.shape[2:],
            synapses.stride,
            synapses.padding,
            synapses.dilation,
            synapses.groups,
            bias is not None,
        )
    else:
        made = nn.Linear(values.shape[1], values.shape[0], bias is not None)
    made = made.to(dtype)
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(values * unit))  # type: ignore[operator]
        if bias is not None:
            made.bias.copy_(torch.from_numpy(np.array(bias)))  # type: ignore[operator]
    return made.requires_grad_(False)


class LavaNet(nn.Module):
    """A network as a net: `[T, B, ...]` whole numbers → spikes of the last layer, or its sums in units of the net."""

    def __init__(self, network: Network, where: str = "the network") -> None:
        super().__init__()
        self.network = network
        self.layers = nn.ModuleList()
        for index, layer in enumerate(network.layers):
            parts = parts_of(network, index, where)
            modules: OrderedDict[str, nn.Module] = OrderedDict()
            if layer.synapses.flattens:
                modules["flatten"] = Flatten()
            modules["weight"] = parts.weight
            if parts.neuron is not None:
                modules["neuron"] = parts.neuron
            self.layers.append(nn.Sequential(modules))

    def forward(self, x: Tensor) -> Tensor:
        """The output, `[T, B, ...]`."""
        if self.network.model == "fixed_pt":
            return self.all_layers(x)[-1]
        return self.all_layers(x.double())[-1].to(x.dtype)

    def all_layers(self, x: Tensor) -> list[Tensor]:
        """What every layer gives."""
        outs: list[Tensor] = []
        for layer, module in zip(self.network.layers, self.layers, strict=True):
            outs.append(module(x if layer.source == INPUT else outs[layer.source]))
        return outs
