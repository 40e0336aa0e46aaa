"""The penalty on firing rates, from what the layers of one forward pass put out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from spikecore.analysis import neuron_layers
from spikecore.errors import OptionError


class RatePenalty:
    """weight / L · Σ_layers (r_l - target)² of each sample; r_l: the sample's spikes per neuron and step in layer l.

    Per sample, so that the mean over a batch is the same in several processes and over accumulated batches.

    Args:
        model: its layers of spiking neurons count; a block counts by what it puts out.
        weight, target: see above.

    Raises:
        OptionError: the net has no spiking layer.
    """

    def __init__(self, model: nn.Module, weight: float, target: float) -> None:
        self._weight, self._target = weight, target
        self._layers = [layer for layer in neuron_layers(model).values() if _spikes(layer)]
        if not self._layers:
            raise OptionError(
                f"rate_penalty = {weight:g}, but {type(model).__name__} has no layer of spiking neurons: set it to 0"
            )
        self._outputs: list[Tensor] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Calls of the net inside count, until `take`."""
        handles = [layer.register_forward_hook(self._keep) for layer in self._layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._outputs.clear()

    def take(self, mask: Tensor | None = None) -> Tensor:
        """The penalty of each sample `[B]` of the latest call, with its gradient.

        Args:
            mask: bool `[T, B]`, True for a sample's own steps; None: all of them.
        """
        total: Tensor | float = 0.0
        for out in self._outputs:
            rates = out.float().flatten(2).mean(2)  # [T, B]
            if mask is None:
                rate = rates.mean(0)
            else:
                own = mask.to(rates)
                rate = (rates * own).sum(0) / own.sum(0).clamp(min=1)
            total = total + (rate - self._target).square()
        penalty: Tensor = self._weight / len(self._layers) * total  # type: ignore[assignment]
        self._outputs.clear()
        return penalty

    def choose(self, which: Tensor) -> None:
        """Of the latest call only these samples count."""
        self._outputs = [out[:, which] for out in self._outputs]

    def _keep(self, layer: nn.Module, inputs: Any, out: Tensor) -> None:
        self._outputs.append(out)


def _spikes(layer: nn.Module) -> bool:
    neuron: Any = getattr(layer, "neuron", layer)
    return bool(getattr(neuron.capabilities, "spiking", False))
