"""LIF with a learnable, rectified scale of the membrane potential."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spikecore.dynamics import detach, where
from spikecore.nn import LIF, Neuron, fire, leaky_charge, reset_after


class KLIF(Neuron):
    """LIF with a learnable scale k of the charged potential.

    h = max(0, k · LIF charge of (v, x))
    s = Θ(h - v_threshold)
    v is reset; with `scale_reset`, hard: v = (1 - s) h / k + s v_reset, soft: v = (h - s v_threshold) / k

    `tau` in steps; `k` is a learnable parameter. `v` starts at `v_reset`; fires when h >= v_threshold; reset in the
    same step.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` and dtype.

    Gradients: to x, k, every other learnable parameter and the initial state; 0 where the rectifier is off.

    Source: Jiang and Zhang, KLIF: An optimized spiking neuron unit for tuning surrogate gradient slope and membrane
    potential (2023).

    Parity: spikingjelly's KLIFNode; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> KLIF(k=1.5)(torch.full((4, 1), 1.0)).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    state = {"v": "v_init"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(LIF.Config):
        """
        Args:
            k: scale of the charged potential.
            scale_reset: the state keeps the potential before the scale.
        """

        k: float = 1.0
        scale_reset: bool = False
        learnable: tuple[str, ...] = ("k",)

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        scaled = params.k * leaky_charge(state.v, x, params)
        h = where(scaled <= 0, 0.0, scaled)  # NaN stays NaN
        s = fire(h - params.v_threshold, params)
        if not params.scale_reset:
            return s, {"v": reset_after(s, h, params)}
        reset_by = detach(s) if params.detach_reset else s
        if params.reset == "hard":
            return s, {"v": (1 - reset_by) * (h / params.k) + reset_by * params.v_reset}
        return s, {"v": h / params.k - reset_by * (params.v_threshold / params.k)}
