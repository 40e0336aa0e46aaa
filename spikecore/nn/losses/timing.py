"""Losses of the moment of the first spike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from spikecore.interfaces.component import Range
from spikecore.nn.losses.base import CrossEntropyConfig, Loss, Share, cross_entropy, levels
from spikecore.nn.readouts import first_spike_time


class FirstSpikeCrossEntropy(Loss):
    """CE(-t1 / scale, y): the class should fire before the others; t1 as in `readouts.first_spike_time`.

    Raises:
        InputError: the output is not spikes.

    Gradients: those of `first_spike_time`; a class that never fires is reached through its surrogate.

    Example:
        >>> spikes = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> round(FirstSpikeCrossEntropy()(spikes, torch.tensor([0])).item(), 4)
        0.3133
    """

    readout = "first_spike"

    @dataclass(frozen=True)
    class Config(CrossEntropyConfig):
        """
        Args:
            scale: in steps; how much later is e times less probable.
        """

        scale: Annotated[float, Range(gt=0.0, lt=math.inf)] = 1.0

    def per_sample(self, out: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(first_spike_time(out) / -self.config.scale, target, self.config.label_smoothing)


class FirstSpikeMSE(Loss):
    """MSE(t1 / T, y'): the class fires at the moment `on`, the others at `off`, as parts of T; 1 is never.

    Raises:
        InputError: the output is not spikes.

    Example:
        >>> spikes = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> FirstSpikeMSE()(spikes, torch.tensor([0])).item()
        0.125
    """

    readout = "first_spike"

    @dataclass(frozen=True)
    class Config(Loss.Config):
        """
        Args:
            on: wanted moment of the class of the sample, 0 to 1.
            off: wanted moment of the other classes, 0 to 1.
        """

        on: Share = 0.0
        off: Share = 1.0

    def per_sample(self, out: Tensor, target: Tensor) -> Tensor:
        moments = first_spike_time(out) / len(out)
        return (moments - levels(moments, target, self.config.on, self.config.off)).square().mean(1)
