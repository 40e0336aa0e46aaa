"""The converted net as one flat module: every weight is its own buffer, every stage one call after the other."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from spikecore_deploy_lynxi.planning import Plan, Stage


class Straight(torch.nn.Module):
    """What the stages of a plan compute, for `[T * B, ...]`.

    It has no submodules, so its TorchScript is one class, and no attribute changes while it runs.

    Args:
        plan: with no refusal.
        dtype: of its weights and of what it takes.
    """

    def __init__(self, plan: Plan, dtype: torch.dtype) -> None:
        super().__init__()
        self._stages = plan.stages
        self._output = plan.output
        self._names: dict[str, dict[str, str]] = {}
        for index, stage in enumerate(plan.stages):
            self._names[stage.name] = {key: _identifier(index, stage, key) for key in stage.tensors}
            for key, tensor in stage.tensors.items():
                self.register_buffer(self._names[stage.name][key], tensor.to(dtype).contiguous())
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """`[T * B, ...]` → the output of the net, `[T * B, ...]`."""
        return self.layers(x)[0]

    def layers(self, x: Tensor) -> tuple[Tensor, ...]:
        """The output of the net, then that of every neuron layer, each `[T * B, ...]`."""
        values = {"": x}
        for stage in self._stages:
            own = {key: getattr(self, name) for key, name in self._names[stage.name].items()}
            values[stage.name] = stage.compute([values[source] for source in stage.sources], own)
        return (values[self._output], *(values[stage.name] for stage in self._stages if stage.neuron))


class Layers(torch.nn.Module):
    """The same, with the neuron layers among its results, for exporters that know `forward` only."""

    def __init__(self, net: Straight) -> None:
        super().__init__()
        self.net = net
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """As `Straight.layers`."""
        return self.net.layers(x)


def _identifier(index: int, stage: Stage, key: str) -> str:
    """A name that every language takes, and that says which layer it belongs to."""
    return f"s{index}_{re.sub(r'[^0-9A-Za-z]+', '_', stage.name)}_{key}"
