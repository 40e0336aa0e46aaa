"""IF, LIF, ParametricLIF and CubaLIF: charge → fire → reset, in that order, within one step.

charge   h = f(v, x)
fire     s = Θ(h - v_threshold)
reset    hard: v = (1 - s) h + s v_reset        soft: v = h - s v_threshold
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from spikecore.dynamics import detach, sigmoid, spike
from spikecore.interfaces.component import Range
from spikecore.nn.neuron import Neuron


def fire_and_reset(h: Any, params: Any) -> tuple[Any, Any]:
    """`(s, v)` from the charged potential `h`."""
    s = spike(h - params.v_threshold, params.surrogate)
    return s, reset_after(s, h, params)


def reset_after(s: Any, h: Any, params: Any) -> Any:
    """`v` after the output `s`: for neurons that fire in their own way."""
    reset_by = detach(s) if params.detach_reset else s
    if params.reset == "hard":
        return (1 - reset_by) * h + reset_by * params.v_reset
    return h - reset_by * params.v_threshold


def leaky_charge(v: Any, x: Any, params: Any) -> Any:
    """`h` of LIF."""
    leak = v - params.v_reset
    return v + (x - leak) / params.tau if params.decay_input else v - leak / params.tau + x


class IF(Neuron):
    """Integrate and fire.

    h = v + x

    No leak; the input is not scaled. `v` starts at `v_reset` in both reset modes; fires when h >= v_threshold; reset in
    the same step.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: to x, the initial state and every learnable parameter; through the spike by the surrogate, in the reset
    too unless `detach_reset`.

    Source: Gerstner et al., Neuronal Dynamics (2014), 1.3, without the leak.

    Parity: spikingjelly's IFNode; tests/peers/test_neurons.py.

    Example:
        >>> import torch
        >>> IF(reset="soft")(torch.full((4, 1), 0.5)).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    known_as = ("IFNode", "IAF")
    state = {"v": "v_reset"}  # noqa: RUF012

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        s, v = fire_and_reset(state.v + x, params)
        return s, {"v": v}


class LIF(Neuron):
    """Leaky integrate and fire, Euler.

    h = v + (x - (v - v_reset)) / tau        decay_input=False:  h = v - (v - v_reset) / tau + x

    `tau` in steps. `v` starts at `v_reset`, and the leak pulls to it, in both reset modes; fires when h >= v_threshold;
    reset in the same step.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: to x, the initial state and every learnable parameter; through the spike by the surrogate, in the reset
    too unless `detach_reset`.

    Source: Gerstner et al., Neuronal Dynamics (2014), 1.3.

    Parity: spikingjelly's LIFNode, with a soft reset at v_reset=0 only (theirs leaks to 0 then);
    tests/peers/test_neurons.py.

    Example:
        >>> import torch
        >>> lif = LIF(tau=2.0, record=("v",))
        >>> lif(torch.full((4, 1), 1.5)).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
        >>> lif.recorded["v"].flatten().tolist()
        [0.75, 0.0, 0.75, 0.0]
    """

    known_as = ("LIFNode", "leaky")
    renamed = {"beta": "tau = 1 / (1 - beta) with decay_input=False"}  # noqa: RUF012
    state = {"v": "v_reset"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            tau: membrane time constant, in steps.
            decay_input: the input is leaked as well.
        """

        tau: Annotated[float, Range(gt=1.0, lt=math.inf)] = 2.0
        decay_input: bool = True

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        s, v = fire_and_reset(leaky_charge(state.v, x, params), params)
        return s, {"v": v}


class ParametricLIF(Neuron):
    """LIF whose time constant is trained, as 1 / tau = σ(w).

    h = v + (x - (v - v_reset)) σ(w)        decay_input=False:  h = v - (v - v_reset) σ(w) + x

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
    state = {"v": "v_reset"}  # noqa: RUF012
    trained = {"init_tau": ("w", lambda tau: -math.log(tau - 1))}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            init_tau: membrane time constant before training, in steps.
            decay_input: the input is leaked as well.
        """

        init_tau: Annotated[float, Range(gt=1.0, lt=math.inf)] = 2.0
        decay_input: bool = True

    @property
    def tau(self) -> Tensor:
        """The time constant as it is now, in steps: 1 / σ(w)."""
        return 1 / self.param_w.sigmoid()  # type: ignore[operator]

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        leak = state.v - params.v_reset
        rate = sigmoid(params.w)
        h = state.v + (x - leak) * rate if params.decay_input else state.v - leak * rate + x
        s, v = fire_and_reset(h, params)
        return s, {"v": v}


class CubaLIF(Neuron):
    """Current-based LIF: the input feeds a synaptic current, the current feeds the membrane.

    current = c_decay · current + x
    h       = v_decay · v + current

    The input is not scaled. `current` starts at 0 and is not reset; `v` starts at `v_reset` and decays to 0 (not to
    `v_reset`); fires when h >= v_threshold, which is 0.5 if not said otherwise; reset in the same step.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: to x, the initial state and every learnable parameter; through the spike by the surrogate, in the reset
    too unless `detach_reset`.

    Source: Davies et al., Loihi: A neuromorphic manycore processor with on-chip learning (IEEE Micro 2018).

    Parity: spikingjelly's CUBALIFNode (default surrogate: rectangular) and snntorch's Synaptic at v_reset=0;
    tests/peers/test_other_neurons.py.

    Example:
        >>> import torch
        >>> cuba = CubaLIF(record=("v", "current"))
        >>> cuba(torch.tensor([0.25, 0.25, 0.0]).reshape(3, 1)).flatten().tolist()
        [0.0, 1.0, 0.0]
        >>> cuba.recorded["current"].flatten().tolist()
        [0.25, 0.375, 0.1875]
        >>> cuba.recorded["v"].flatten().tolist()
        [0.25, 0.0, 0.1875]
    """

    known_as = ("CUBALIFNode", "synaptic")
    renamed = {"alpha": "c_decay = alpha", "beta": "v_decay = beta"}  # noqa: RUF012
    state = {"current": 0.0, "v": "v_reset"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            c_decay: what is left of the current after one step, 0 to 1.
            v_decay: what is left of the membrane potential after one step, 0 to 1.
        """

        v_threshold: float = 0.5
        c_decay: Annotated[float, Range(ge=0.0, le=1.0)] = 0.5
        v_decay: Annotated[float, Range(ge=0.0, le=1.0)] = 0.75

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        current = params.c_decay * state.current + x
        s, v = fire_and_reset(params.v_decay * state.v + current, params)
        return s, {"current": current, "v": v}
