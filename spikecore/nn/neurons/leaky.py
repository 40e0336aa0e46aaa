"""`Leaky`: snntorch's leaky integrate and fire, whose reset comes one step late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from spikecore.dynamics import clamp, detach
from spikecore.interfaces.component import Inner, Range
from spikecore.nn.hard_reset import LARGEST
from spikecore.nn.neuron import Neuron
from spikecore.nn.neurons.equations import fire
from spikecore.nn.surrogates import ATan, Surrogate


class Leaky(Neuron):
    """Leaky integrate and fire, whose reset is decided by the potential after the previous step.

    r = 1 where v > v_threshold, without gradient
    soft: h = beta v + x - r v_threshold        hard: h = beta (1 - r) v + x        none: h = beta v + x
    s = 1 where h > v_threshold
    reset_delay=True:  v = h: the reset comes with the next step
    reset_delay=False: soft: v = h - (s - r) v_threshold        hard: v = h - (s - r) h

    The input is not scaled, the subtracted threshold is not leaked. `v` starts at 0. Without a delay, a potential that
    is still above the threshold after its reset is reset once more in the next step; `LIF` does not do that. A hard
    reset recovers from v = inf.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: to x, the initial state and every learnable parameter; through s by the surrogate, through r never.

    Source: Eshraghian et al., Training spiking neural networks using lessons from deep learning (Proceedings of the
    IEEE 2023).

    Parity: snntorch's Leaky, in every bit of finite numbers; tests/peers/test_leaky.py.

    Example:
        >>> import torch
        >>> leaky = Leaky(beta=0.5, record=("v",))
        >>> leaky(torch.tensor([1.5, 0.0, 0.5]).reshape(3, 1)).flatten().tolist()
        [1.0, 0.0, 0.0]
        >>> leaky.recorded["v"].flatten().tolist()
        [1.5, -0.25, 0.375]
    """

    renamed = {  # noqa: RUF012
        "threshold": "v_threshold",
        "reset_mechanism": "reset = 'soft' for subtract, 'hard' for zero, 'none'",
        "spike_grad": "surrogate",
        "learn_beta": "learnable=('beta',)",
        "learn_threshold": "learnable=('v_threshold',)",
    }
    state = {"v": 0.0}  # noqa: RUF012
    observed = ("h",)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            beta: what is left of `v` after one step, 0 to 1.
            v_threshold: fires when `h > v_threshold`.
            fires: `above`: when h > v_threshold; `at`: when h >= v_threshold.
            reset: `soft` subtracts the threshold, `hard` sets to 0, `none` leaves `v` as it is.
            reset_delay: the reset comes with the next step.
            surrogate: the derivative of the spike.
            learnable: names of numeric options to train.
        """

        beta: Annotated[float, Range(ge=0.0, le=1.0)] = 0.9
        v_threshold: float = 1.0
        fires: Literal["at", "above"] = "above"
        reset: Literal["soft", "hard", "none"] = "soft"
        reset_delay: bool = True
        surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()  # noqa: RUF009  (immutable)
        learnable: tuple[str, ...] = ()

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        threshold = params.v_threshold
        if params.reset == "none":
            h = params.beta * state.v + x
            return fire(h - threshold, params), {"v": h, "h": h}
        due = detach(fire(state.v - threshold, params))
        if params.reset == "soft":
            h = params.beta * state.v + x - due * threshold
        else:
            # 0 * inf is NaN: without the limit, one infinite input would end the neuron. NaN passes through it.
            h = params.beta * ((1 - due) * clamp(state.v, max=LARGEST)) + x
        s = fire(h - threshold, params)
        if params.reset_delay:
            return s, {"v": h, "h": h}
        reset_by = s - due
        if params.reset == "soft":
            return s, {"v": h - reset_by * threshold, "h": h}
        finite = clamp(h, max=LARGEST)
        return s, {"v": finite - reset_by * finite, "h": h}
