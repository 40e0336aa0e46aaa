"""`LoihiLIF`: the current-based LIF of Loihi in its integers, which floating point holds exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from spikecore.dynamics import abs as magnitude
from spikecore.dynamics import clamp, detach, floor, sign, where
from spikecore.dynamics import round as nearest
from spikecore.interfaces import Inner, NeuronCapabilities, Range
from spikecore.nn import ATan, Neuron, Surrogate, fire

UNITY = 4096.0
"""One, in the 12 bits of decays. States are split at 12 bits too, so that no product needs more than 24 bits."""
LIMIT = 2.0**23
"""States have 24 bits, the sign included."""
ALIGN = 64.0
"""Input, bias and threshold are aligned 6 bits above the lowest bit of the states."""


class LoihiLIF(Neuron):
    """Loihi's current-based LIF, bit for bit as lava-nc's `LIF` computes it in fixed point.

    U = wrap(tz(U, 4095 - du) + 64 ⟦x scale⟧)         tz(n, k) = sign(n) ⌊|n| k / 4096⌋
    V = sat(tz(V, 4096 - dv) + U + 64 ⟦bias scale⟧)   ⟦ ⟧ rounds to the nearest integer, halves to even
    s = 1 where V > 64 ⟦v_threshold scale⟧            V = 0 where s = 1

    `U` and `V` are whole numbers of 24 bits: `U` wraps round, `V` saturates. All else is in units of the net, of which
    one has `scale` of the chip's: the states are u = U / (64 scale) and v = V / (64 scale), and weights that are
    multiples of 1 / `scale` have whole sums. du = 4095 leaves nothing of u: then there is no current. Sums up
    to 2^17 are exact in float32 as in float64: products are split, so that none needs more than 24
    bits. With a surrogate that has `spiking=False`, nothing is rounded either, so that the gradient is
    that of the forward pass.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: to x, the states and learnable options; rounding and truncation are passed straight through, saturation
    stops them; through the spike by the surrogate of v - v_threshold, in the reset too unless `detach_reset`.

    Source: Davies et al., Loihi: A neuromorphic manycore processor with on-chip learning (IEEE Micro 2018).

    Parity: lava-nc 0.10.0, `LIF` with the tag `fixed_pt`, in u, v and spikes; tests/test_real_lava.py.

    Example:
        >>> import torch
        >>> neuron = LoihiLIF(v_threshold=1.0, dv=2048, scale=64, record=("v",))
        >>> neuron(torch.tensor([1.0, 0.625, 0.0]).reshape(3, 1)).flatten().tolist()
        [0.0, 1.0, 0.0]
        >>> neuron.recorded["v"].flatten().tolist()
        [1.0, 0.0, 0.0]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(dtypes=("float32", "float64"))
    state = {"u": 0.0, "v": "v_init"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            v_threshold: fires above it; a whole number of 1 / scale.
            du: what the current loses in a step, in 4096ths, less 1.
            dv: what the potential loses in a step, in 4096ths; 4096 is no number of 12 bits, but lava-nc takes it.
            bias: added to the potential in every step.
            scale: integer units in 1; a power of two.
            v_init: initial `v`.
            fires: the chip fires above the threshold only.
            detach_reset: no gradient through `s` in the reset.
            surrogate: the derivative of the spike.
            learnable: names of numeric options to train.
        """

        v_threshold: Annotated[float, Range(ge=0.0)] = 1.0
        du: Annotated[int, Range(ge=0, le=4095)] = 4095
        dv: Annotated[int, Range(ge=0, le=4096)] = 2048
        bias: float = 0.0
        scale: Annotated[int, Range(ge=1, le=2**16)] = 64
        v_init: float = 0.0
        fires: Literal["above"] = "above"
        detach_reset: bool = False
        surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()  # noqa: RUF009  (immutable)
        learnable: tuple[str, ...] = ()

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        yield from super().option_problems(config)
        if config.scale & (config.scale - 1):
            yield "scale", f"must be a power of two, so that states are exact; got {config.scale}"

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        rounds = getattr(params.surrogate.config, "spiking", True)
        unit = ALIGN * params.scale  # of the states, in one unit of the net

        def aligned(value: Any) -> Any:
            return ALIGN * (_rounded(value * params.scale) if rounds else value * params.scale)

        def decayed(value: Any, kept: float) -> Any:
            return _decayed(value * unit, kept) if rounds else value * unit * (kept / UNITY)

        u = _wrapped(decayed(state.u, UNITY - 1 - params.du) + aligned(x))
        charged = decayed(state.v, UNITY - params.dv) + u + aligned(params.bias)
        h = clamp(charged, 1 - LIMIT, LIMIT - 1)
        s = fire((h - aligned(params.v_threshold)) / unit, params)
        reset_by = detach(s) if params.detach_reset else s
        return s, {"u": u / unit, "v": (1 - reset_by) * h / unit}


def _decayed(n: Any, kept: float) -> Any:
    """tz(n, kept), with the gradient of n kept / 4096.

    |n| is at most 2^23, so both halves of it are at most 12 bits, and their products with `kept` 24 bits.
    """
    size = magnitude(detach(n))
    high = floor(size / UNITY)
    low = size - high * UNITY
    whole = sign(n) * (high * kept + floor(low * kept / UNITY))
    return _straight(whole, n * (kept / UNITY))


def _rounded(x: Any) -> Any:
    """The nearest whole number, with the gradient of x."""
    return _straight(nearest(x), x)


def _straight(value: Any, like: Any) -> Any:
    """`value`, with the gradient of `like`: nothing but an exact zero is added."""
    return value + (like - detach(like))


def _wrapped(n: Any) -> Any:
    """24 bits; what is beyond comes in again at the other end. -2^23 is not among them, 2^23 is, as in lava-nc."""
    return where(n > LIMIT, n - 2 * LIMIT, where(n <= -LIMIT, n + 2 * LIMIT, n))
