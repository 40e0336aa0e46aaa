"""`ParametricLIF`: LIF whose time constant is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from spikecore.dynamics import sigmoid
from spikecore.interfaces.component import DefaultsTo, Range
from spikecore.nn.neuron import Neuron
from spikecore.nn.neurons.equations import fire_and_reset


class ParametricLIF(Neuron):
    """LIF whose time constant is trained, as 1 / tau = σ(w).

    h = v + (x - (v - v_leak)) σ(w)        decay_input=False:  h = v - (v - v_leak) σ(w) + x

    w starts at -ln(init_tau - 1), so tau stays above 1 whatever w becomes. It is the parameter `param_w`: one for all
    neurons, or one per channel when `init_tau` is. Otherwise as `LIF`.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: to x, the initial state, w and every learnable parameter; through the spike by the surrogate, in the
    reset too unless `detach_reset`.

    Source: Fang et al., Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking Neural Networks
    (ICCV 2021).

    Parity: spikingjelly's ParametricLIFNode, with the same limit as `LIF`; tests/peers/test_other_neurons.py.

    Example:
        >>> import torch
        >>> plif = ParametricLIF(init_tau=4.0)
        >>> plif(torch.full((4, 1), 2.5)).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
        >>> [round(value.item(), 4) for value in (plif.param_w, plif.tau)]
        [-1.0986, 4.0]
    """

    known_as = ("ParametricLIFNode",)
    renamed = {  # noqa: RUF012
        "tau": "init_tau",
        "beta": "init_tau = 1 / (1 - beta) with decay_input=False",
    }
    state = {"v": "v_init"}  # noqa: RUF012
    observed = ("h",)
    trained = {"init_tau": ("w", lambda tau: -math.log(tau - 1))}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            init_tau: membrane time constant before training, in steps.
            decay_input: the input is leaked as well.
            v_leak: what the leak pulls `v` to; None for `v_reset`.
        """

        init_tau: Annotated[float, Range(gt=1.0, lt=math.inf)] = 2.0
        decay_input: bool = True
        v_leak: Annotated[float | None, DefaultsTo("v_reset")] = None

    @property
    def tau(self) -> Tensor:
        """The time constant as it is now, in steps: 1 / σ(w)."""
        return 1 / self.param_w.sigmoid()  # type: ignore[operator]

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        leak = state.v - params.v_leak
        rate = sigmoid(params.w)
        if params.decay_input:
            h = state.v + (x - leak) * rate
        else:
            h = state.v - leak * rate + x
        s, v = fire_and_reset(h, params)
        return s, {"v": v, "h": h}
