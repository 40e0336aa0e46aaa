"""`FixedPointLIF`: a leaky neuron in integers, as chips compute it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from spikecore.dynamics import clamp, floor, round
from spikecore.interfaces import Inner, NeuronCapabilities, Range
from spikecore.nn import ATan, Neuron, Surrogate, fire

HALF = 4096.0
"""States are split at 12 bits, so that no product of two parts needs more than the 24 bits that float32 holds."""


class FixedPointLIF(Neuron):
    """Leaky integrate and fire in fixed-point arithmetic.

    h = sat(⌊v decay / 4096⌋ + round(x / scale))

    All states are whole numbers, held exactly in floating point: ⌊ ⌋ rounds down, as an arithmetic shift does; sat
    saturates to `state_bits` bits, two's complement; halves round to even. Fires when h >= v_threshold, in the same
    unit; the reset takes the place of v in the same step; v starts at v_init. decay = 4096 is IF.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: none; train with LIF, and quantize.

    Example:
        >>> import torch
        >>> neuron = FixedPointLIF(scale=0.5, decay=2048.0, v_threshold=3.0)
        >>> neuron(torch.tensor([1.0, 1.2, 0.0, 1.6]).reshape(4, 1)).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(differentiable=False, dtypes=("float32", "float64"))
    state = {"v": "v_init"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            v_threshold: in units of the state.
            v_reset: target of the hard reset, in units of the state.
            v_init: initial `v`, in units of the state.
            fires: `at`: when h >= v_threshold; `above`: when h > v_threshold.
            reset: `hard`: v = (1 - s) h + s v_reset; `soft`: v = h - s v_threshold.
            scale: what one unit of the input stands for.
            decay: what is left of the state after a step, in 4096ths.
            state_bits: width of the state, the sign included.
            surrogate: of no effect; every neuron has one.
            learnable: names of options that are stored with the weights.
        """

        v_threshold: float = 64.0
        v_reset: float = 0.0
        v_init: float = 0.0
        fires: Literal["at", "above"] = "at"
        reset: Literal["hard", "soft"] = "hard"
        scale: Annotated[float, Range(gt=0.0)] = 1 / 64
        decay: Annotated[float, Range(ge=0.0, le=4096.0)] = 2048.0
        state_bits: Annotated[int, Range(ge=2, le=24)] = 8
        surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()  # noqa: RUF009  (immutable)
        learnable: tuple[str, ...] = ()

    observed = ("h",)

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        limit = 2.0 ** (params.state_bits - 1)
        high = floor(state.v / HALF)
        low = state.v - high * HALF
        left = high * params.decay + floor(low * params.decay / HALF)
        h = clamp(left + round(x / params.scale), -limit, limit - 1.0)
        s = fire(h - params.v_threshold, params)
        v = (1 - s) * h + s * params.v_reset if params.reset == "hard" else h - s * params.v_threshold
        return s, {"v": v, "h": h}
