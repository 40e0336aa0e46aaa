"""A net as Lava runs it: populations of LIF neurons, each behind one set of synapses.

Numbers are those of the process network: whole numbers in fixed point, real ones in floating point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Shape = tuple[int, ...]
Model = Literal["fixed_pt", "floating_pt"]
"""Tags of Lava's process models."""

INPUT = -1
"""The place of the input among the sources of a layer."""
MAX_VTH, MAX_BIAS, STATE_LIMIT, ALIGN, UNITY = 2**17 - 1, 2**12 - 1, 2**23, 64, 4096
"""17 bits of threshold, 13 of bias, 24 of state; 6 bits lie between them and the states; decays are in 4096ths."""


@dataclass(frozen=True, eq=False)
class Synapses:
    """A matrix or a kernel, which takes the spikes of one source.

    Args:
        weight: `[out, in]`, or `[out, in / groups, height, width]`.
        flattens: the source has several axes, the matrix takes one.
        stride, padding, dilation, groups: of a kernel.
    """

    weight: Doubles
    flattens: bool = False
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def is_kernel(self) -> bool:
        """Whether it is a convolution."""
        return self.weight.ndim == 4


@dataclass(frozen=True, eq=False)
class Population:
    """LIF neurons.

    Args:
        du: loss of the current: 4096ths less 1 in fixed point, a share in floating point.
        dv: loss of the potential, in 4096ths or as a share.
        vth: fires above it.
        v: potential before the first step of Lava, one for each channel, in units of the state.
    """

    du: float
    dv: float
    vth: float
    v: Doubles


@dataclass(frozen=True, eq=False)
class Layer:
    """Synapses, and the neurons behind them; without neurons it is read out as it is.

    Args:
        name: of the operator of the net that it stands for.
        source: index of the layer whose spikes it takes, or `INPUT`.
        shape: of its output, without T.
        bias: one for each channel.
        unit: what 1 of its sums is in the net, for a readout.
        recurrent: `[n, n]`, from the population's own spikes back to it; None without a loop.
    """

    name: str
    source: int
    shape: Shape
    synapses: Synapses
    bias: Doubles
    population: Population | None
    unit: float = 1.0
    recurrent: Doubles | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """All layers; the last one gives the output."""

    model: Model
    input_shape: Shape
    layers: tuple[Layer, ...]

    def lag(self, index: int) -> int:
        """Steps from the net's step to that of Lava: every set of synapses delays by one."""
        lag = 0
        while index != INPUT:
            lag, index = lag + 1, self.layers[index].source
        return lag
