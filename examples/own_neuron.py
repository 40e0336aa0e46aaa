# spike run --load examples/own_neuron.py examples/own_neuron.toml
"""A neuron of your own, used from the command line: its options and equations are all that is written.

It resets in one way only, so it declares a Config of its own: one that derived from `Neuron.Config` would also offer
`reset`, `detach_reset` and `v_reset`, which its step ignores. `spike test neuron:adaptive_threshold --load
examples/own_neuron.py` checks that it keeps the contract of neurons.
"""

from dataclasses import dataclass
from typing import Annotated

from spikecore import register
from spikecore.dynamics import spike
from spikecore.interfaces.component import Inner, Range
from spikecore.nn import ATan, Neuron, Surrogate


@register("neuron", "adaptive_threshold")
class AdaptiveThreshold(Neuron):
    """A leaky neuron whose threshold rises with every spike and falls back.

    h = decay v + x;   s = Θ(h - v_threshold - a);   v = h - s v_threshold;   a = rho a + s beta
    """

    state = {"v": 0.0, "a": 0.0}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            v_threshold: fires when h >= v_threshold + a.
            decay: share of v that is left after a step.
            rho: share of a that is left after a step.
            beta: what one spike adds to the threshold.
            surrogate: the derivative of the spike.
            learnable: names of numeric options to train.
        """

        v_threshold: float = 1.0
        decay: Annotated[float, Range(ge=0.0, le=1.0)] = 0.5
        rho: Annotated[float, Range(ge=0.0, le=1.0)] = 0.8
        beta: float = 0.2
        surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()  # noqa: RUF009  (immutable)
        learnable: tuple[str, ...] = ()

    @staticmethod
    def step(x, state, params):
        h = params.decay * state.v + x
        s = spike(h - params.v_threshold - state.a, params.surrogate)
        return s, {"v": h - s * params.v_threshold, "a": params.rho * state.a + params.beta * s}
