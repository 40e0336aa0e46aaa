"""Current-based LIF with intra-layer connections; `ilc` says how they work and why they are not elementwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from spikecore.interfaces import Range
from spikecore.nn import CubaLIF
from spikecore_neuron_zoo.ilc import IntraLayer


class ILCCubaLIF(IntraLayer):
    """Current-based LIF with intra-layer connections.

    c[t] = x[t] + W s[t-1] + b within each group, c[0] = x[0];  then CubaLIF's step on c

    As `ILCIF`, with the synaptic current and the potential of CubaLIF. It is not elementwise (see this module's
    docstring).

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, N]` and dtype.

    Raises:
        ShapeError: a step does not have num_groups · group_size features.

    Gradients: to x, W, b and the initial state; through the spike by the surrogate, in the feedback too.

    Source: Chen et al. (IEEE TNNLS 2024).

    Parity: spikingjelly's ILCCUBALIFNode; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> neuron = ILCCubaLIF(num_groups=1, group_size=2)
        >>> _ = neuron.weight.data.fill_(0.25), neuron.bias.data.zero_()
        >>> neuron(torch.tensor([[[0.5, 0.0]], [[0.0, 0.25]]])).tolist()
        [[[1.0, 0.0]], [[1.0, 1.0]]]
    """

    plain = CubaLIF

    @dataclass(frozen=True, kw_only=True)
    class Config(IntraLayer.Config):
        """
        Args:
            c_decay: what is left of the current after one step.
            v_decay: what is left of the potential after one step.
        """

        v_threshold: float = 0.5
        c_decay: Annotated[float, Range(ge=0.0, le=1.0)] = 0.5
        v_decay: Annotated[float, Range(ge=0.0, le=1.0)] = 0.75
