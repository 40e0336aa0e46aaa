"""The Jacobian of one step, as a graph, for learning rules that propagate derivatives forward in time."""

from __future__ import annotations

from spikecore.dynamics.builder import Builder, copy_into
from spikecore.dynamics.graph import Graph, Program
from spikecore.dynamics.vjp import reached_inputs, vjp


def derivatives(program: Program) -> Graph:
    """The derivative of every output of a step with respect to every input that it depends on.

    The outputs are named `d OUTPUT/d INPUT`, such as `d state.v/d x` or `d out/d param.tau`. OUTPUT is one of the step
    (`out`, `state.NAME` after the step); INPUT is `x`, `state.NAME` before the step or a learnable `param.NAME`. Pairs
    without a gradient path are left out. All outputs are elementwise functions of the step's inputs, so a whole
    sequence of steps can be evaluated at once. The derivative of a spike is that of its surrogate; no gradient passes
    `detach`.

    Example:
        >>> from spikecore.dynamics import equations
        >>> from spikecore.nn import LI
        >>> equations(derivatives(LI(tau=4.0).program()))[-1]
        'd state.v/d state.v = 0.75'
    """
    builder = Builder()
    one = builder.const(1.0)
    learned = [f"param.{param.name}" for param in program.params if param.learnable]
    wanted = ["x", *(f"state.{name}" for name in program.states), *learned]
    outputs: dict[str, int] = {}
    for output in program.forward.outputs:
        gradient = vjp(program.forward, [output], wanted)
        new = copy_into(builder, gradient, given={f"grad.{output}": one})
        reaches = reached_inputs(program.forward, [output])
        for name in wanted:
            if name in reaches:
                outputs[f"d {output}/d {name}"] = new[gradient.outputs[f"grad.{name}"]]
    return builder.graph(outputs)
