"""A program behind a batch norm: one program that normalises its input by given statistics, then takes the step."""

from __future__ import annotations

from functools import lru_cache

from spikecore.dynamics.builder import Builder, copy_into
from spikecore.dynamics.graph import Param, Program
from spikecore.dynamics.trace import make_program

NORM_PARAMS = ("norm:mean", "norm:inverse", "norm:gamma", "norm:beta")
"""The parameters that a normed program has behind its own; no neuron's parameter has such a name."""
_LEARNABLE = ("norm:gamma", "norm:beta")


@lru_cache(maxsize=1024)
def normed(program: Program) -> Program:
    """The program of `step((x - mean) * inverse * gamma + beta, ...)`.

    Its parameters are those of `program`, then `NORM_PARAMS`, one value per channel. Gamma and beta are learnable:
    their gradients are the two sums over all axes but the channels' that the gradient of a batch norm needs. The mean
    and the inverse, 1 / sqrt(var + eps), count as constants.
    """
    builder = Builder()
    mean, inverse, gamma, beta = (builder.input(f"param.{name}") for name in NORM_PARAMS)
    centred = builder.op("sub", builder.input("x"), mean)
    scaled = builder.op("mul", builder.op("mul", centred, inverse), gamma)
    new = copy_into(builder, program.forward, given={"x": builder.op("add", scaled, beta)})
    forward = builder.graph({name: new[index] for name, index in program.forward.outputs.items()})
    params = [Param(name, per_channel=True, learnable=name in _LEARNABLE) for name in NORM_PARAMS]
    return make_program(
        program.name, forward, program.numbers, program.states, (*program.params, *params), program.record
    )
