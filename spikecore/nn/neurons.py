"""IF, LIF, ParametricLIF and CubaLIF: charge → fire → reset, in that order, within one step.

charge   h = f(v, x)
fire     s = Θ(h - v_threshold)
reset    hard: v = (1 - s) h + s v_reset        soft: v = h - s v_threshold

In all of them `v` starts at `v_reset` in both reset modes, gradients reach the input, the initial state and what is
named in `learnable` (through `s` by the surrogate; with `detach_reset` not through `s` in the reset), and a value given
per channel has size C and follows axis 1 of a single step `[B, C, ...]`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from spikecore.dynamics import detach, sigmoid, spike
from spikecore.errors import OptionError
from spikecore.interfaces.component import Range
from spikecore.nn.neuron import Neuron


def fire_and_reset(h: Any, params: Any) -> tuple[Any, Any]:
    """`(s, v)` from the charged potential `h`.

    Args:
        h: the potential after the charge.
        params: needs `v_threshold`, `v_reset`, `reset`, `detach_reset` and `surrogate`.
    """
    s = spike(h - params.v_threshold, params.surrogate)
    reset_by = detach(s) if params.detach_reset else s
    if params.reset == "hard":
        return s, (1 - reset_by) * h + reset_by * params.v_reset
    return s, h - reset_by * params.v_threshold


class IF(Neuron):
    """Integrate and fire.

        h = v + x

    No leak; the input is not scaled; fires when h >= v_threshold; reset in the same step.

    Parity: `IFNode` of spikingjelly (tests/peers).

    Example:
        >>> nn.IF(reset="soft")(torch.full((4, 1), 0.5)).flatten()
        tensor([0., 1., 0., 1.])
    """

    state = {"v": "v_reset"}  # noqa: RUF012

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        s, v = fire_and_reset(state.v + x, params)
        return s, {"v": v}


class LIF(Neuron):
    """Leaky integrate and fire, Euler.

        h = v + (x - (v - v_reset)) / tau        decay_input=False:  h = v - (v - v_reset) / tau + x

    The leak pulls to `v_reset` in both reset modes; the input is divided by tau unless `decay_input=False`; fires when
    h >= v_threshold; reset in the same step.

    Source: Gerstner et al., Neuronal Dynamics (2014), 1.3.
    Parity: `LIFNode` of spikingjelly with `v_reset` 0 or a hard reset (tests/peers).

    Example:
        >>> lif = nn.LIF(tau=2.0, record=("v",))
        >>> lif(torch.full((4, 1), 1.5)).flatten()
        tensor([0., 1., 0., 1.])
        >>> lif.recorded["v"].flatten()
        tensor([0.7500, 0.0000, 0.7500, 0.0000])
    """

    state = {"v": "v_reset"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            tau: membrane time constant, in steps.
            decay_input: the input is leaked as well.
        """

        tau: Annotated[float, Range(gt=1.0)] = 2.0
        decay_input: bool = True

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        leak = state.v - params.v_reset
        h = state.v + (x - leak) / params.tau if params.decay_input else state.v - leak / params.tau + x
        s, v = fire_and_reset(h, params)
        return s, {"v": v}


class ParametricLIF(Neuron):
    """LIF whose time constant is trained, as 1 / tau = σ(w).

        h = v + (x - (v - v_reset)) σ(w)        decay_input=False:  h = v - (v - v_reset) σ(w) + x

    w starts at -ln(init_tau - 1), so tau stays above 1 whatever w becomes; it is the parameter `param_w`, one for all
    neurons, or one per channel when `init_tau` is. Otherwise as `LIF`.

    Source: Fang et al., Incorporating Learnable Membrane Time Constant (ICCV 2021), eq. 8-11.
    Parity: `ParametricLIFNode` of spikingjelly (tests/peers).

    Example:
        >>> plif = nn.ParametricLIF(init_tau=4.0)
        >>> plif.param_w
        Parameter containing:
        tensor(-1.0986, requires_grad=True)
        >>> plif(torch.full((4, 1), 2.5)).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
        >>> plif.tau.item()
        4.0
    """

    state = {"v": "v_reset"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            init_tau: membrane time constant before training, in steps.
            decay_input: the input is leaked as well.
        """

        init_tau: Annotated[float, Range(gt=1.0, lt=math.inf)] = 2.0
        decay_input: bool = True

        def __post_init__(self) -> None:
            if "init_tau" in self.learnable:
                raise OptionError("init_tau is where tau starts, which is always trained, as w: leave it out")

    @staticmethod
    def trained(config: Any) -> Mapping[str, float | Sequence[float]]:
        """w, of which 1 / tau = σ(w)."""
        taus = config.init_tau
        if isinstance(taus, tuple):
            return {"w": [-math.log(tau - 1) for tau in taus]}
        return {"w": -math.log(taus - 1)}

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

        current = c_decay * current + x
        h       = v_decay * v + current

    `current` starts at 0 and is not reset; `v` decays to 0 (not to `v_reset`); the input is not scaled; fires when
    h >= v_threshold, 0.5 by default; reset in the same step.

    Source: Davies et al., Loihi (IEEE Micro 2018), the model of a compartment.
    Parity: `CUBALIFNode` of spikingjelly, but for its default surrogate (tests/peers).

    Example:
        >>> cuba = nn.CubaLIF(record=("v", "current"))
        >>> cuba(torch.tensor([0.25, 0.25, 0.0, 0.0]).reshape(4, 1)).flatten()
        tensor([0., 1., 0., 0.])
        >>> cuba.recorded["current"].flatten()
        tensor([0.2500, 0.3750, 0.1875, 0.0938])
        >>> cuba.recorded["v"].flatten()
        tensor([0.2500, 0.0000, 0.1875, 0.2344])
    """

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
