"""How often the neurons of each layer fire.

rate        spikes per neuron and step: mean of (s != 0)
silent      share of the neurons that never fired
saturated   share of the neurons that fired in every step

Counted over all steps, samples and calls inside a `with` block; a neuron is one place of `[B, ...]` without the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.analysis.monitor import Monitor
from spikecore.analysis.selection import Where
from spikecore.errors import ShapeError
from spikecore.nn.neuron import Neuron

EXACT = 1 << 24
"""Up to this number a sum of ones in float32 is exact."""


def firing_rate(spikes: Tensor) -> Tensor:
    """Spikes per step of each neuron, over time and batch; a spike is whatever is not 0.

    Args:
        spikes: `[T, B, ...]`.

    Returns:
        `[...]`, 0 to 1; NaN without a step.

    Raises:
        ShapeError: fewer than two axes.

    Example:
        >>> firing_rate(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])).tolist()
        [1.0, 0.5]
    """
    if spikes.dim() < 2:
        raise ShapeError(f"firing_rate takes spikes [T, B, ...], got {tuple(spikes.shape)}")
    return (spikes.detach() != 0).to(torch.get_default_dtype()).mean((0, 1))


@dataclass(frozen=True)
class LayerRates:
    """What a `RateMeter` says of one layer.

    Args:
        per_neuron: rate of each neuron, without T and B.
        rate: mean of `per_neuron`.
        silent: share of the neurons that never fired.
        saturated: share of the neurons that fired in every step.
        num_neurons: in the layer.
        num_steps: steps times samples seen; without any, the other numbers are NaN.
    """

    per_neuron: Tensor
    rate: float
    silent: float
    saturated: float
    num_neurons: int
    num_steps: int

    def __str__(self) -> str:
        return (
            f"rate {self.rate:.4f}, silent {self.silent:.1%}, saturated {self.saturated:.1%} "
            f"({self.num_neurons} neurons, {self.num_steps} steps)"
        )


class RateMeter:
    """Counts spikes layer by layer inside its `with` block; memory is one number per neuron, however long it runs.

    Args:
        net: the net that will be called.
        where: the spiking layers; see `Monitor`.

    Raises:
        OptionError: no such layer.
        StateError: in a call: the layers changed inside the block.
        ShapeError: in a call: a layer's spikes have another shape than before, or than the mask of own steps.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), IF())
        >>> with RateMeter(net) as meter:
        ...     _ = net(torch.zeros(4, 5, 2))
        >>> meter.rates["1"].num_steps
        20
    """

    def __init__(self, net: nn.Module, where: Where = Neuron) -> None:
        self._counter = _Counter(net, where)

    def own_steps(self, mask: Tensor | None) -> None:
        """In the calls that follow only these steps count, where shorter samples are padded.

        Args:
            mask: bool `[T, B]`, True for a sample's own steps (`Batch.mask`); None: all of them.
        """
        self._counter.mask = mask

    def __enter__(self) -> RateMeter:
        self._counter.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._counter.close()

    def clear(self) -> None:
        """Count from 0 again."""
        self._counter.clear()

    @property
    def rates(self) -> dict[str, LayerRates]:
        """Layer → its rates so far, in the net's order."""
        summaries = {}
        for name, records in self._counter.items():
            counts = records[0] if records else torch.zeros(0)
            summaries[name] = _summary(counts, self._counter.num_steps[name])
        return summaries


def _summary(counts: Tensor, num_steps: int) -> LayerRates:
    if not counts.numel() or not num_steps:
        nan = float("nan")
        return LayerRates(counts * nan, nan, nan, nan, counts.numel(), num_steps)
    rates = counts.double() / num_steps
    return LayerRates(
        per_neuron=rates.to(torch.get_default_dtype()),
        rate=float(rates.mean()),
        silent=float((counts == 0).double().mean()),
        saturated=float((counts == num_steps).double().mean()),
        num_neurons=counts.numel(),
        num_steps=num_steps,
    )


class _Counter(Monitor):
    """A monitor whose records are numbers of spikes; it knows how many steps they come from."""

    def __init__(self, net: nn.Module, where: Where) -> None:
        super().__init__(net, "output", where, reduce="sum")
        self.mask: Tensor | None = None

    def clear(self) -> None:
        super().clear()
        self.num_steps = dict.fromkeys(self.names, 0)

    def _transform(self, name: str, value: Any) -> Any:
        multi = getattr(self._layers[name], "step_mode", "multi") == "multi"
        if not isinstance(value, Tensor) or value.dim() < 1 + multi:
            form = "[T, B, ...]" if multi else "[B, ...]"
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ShapeError(f"rates are counted of spikes {form}; layer {name!r} returned {got}")
        axes = (0, 1) if multi else (0,)
        most = value.shape[0] * (value.shape[1] if multi else 1)
        fired = value != 0
        if self.mask is not None:
            if not multi or value.shape[:2] != self.mask.shape:
                raise ShapeError(
                    f"own steps {tuple(self.mask.shape)} are [T, B] of the spikes of every layer; layer {name!r} "
                    f"returned {tuple(value.shape)}"
                )
            most = int(self.mask.sum())
            own = self.mask.to(value.device)
            fired &= own.view(*own.shape, *[1] * (value.dim() - 2))
        self.num_steps[name] += most
        if most > EXACT:
            return fired.sum(axes)
        return fired.float().sum(axes).long()  # several times as fast as the sum of booleans
