"""The traced form of a neuron: a straight-line graph in single-assignment form.

    node 0   input  x
    node 1   input  state.v
    node 2   const  2.0
    node 3   sub    (0, 1)
    node 4   div    (3, 2)
    ...

Nodes are in topological order and hash-consed: equal nodes are one node. Names of inputs and outputs carry a namespace
(`x`, `state.v`, `param.tau`, `grad.out`, `grad.state.v`, `grad.param.tau`), so a user's names cannot clash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

INPUT = "input"
CONST = "const"
SPIKE = "spike"
"""`spike(value, u, derivative)`: equals `value`; its derivative with respect to `u` is `derivative`."""
DETACH = "detach"
"""`detach(a)`: equals `a`; no gradient passes."""


@dataclass(frozen=True)
class Node:
    """One operation.

    Args:
        op: `input`, `const`, or a name in `dynamics.ops.OPS`.
        args: indices of earlier nodes.
        value: a constant's number, an input's name; otherwise None.
        is_bool: the result is a truth value (comparisons, `and`, `or`, `not`).
        slot: for a constant, its index in the program's `numbers`. Code that is compiled once for many programs of one
            structure reads the number from there; everything else uses `value`. None for a fixed constant.
    """

    op: str
    args: tuple[int, ...] = ()
    value: float | str | None = None
    is_bool: bool = False
    slot: int | None = None


@dataclass(frozen=True)
class Graph:
    """A function of named inputs.

    Args:
        nodes: in topological order.
        outputs: name → index of the node that computes it.
    """

    nodes: tuple[Node, ...]
    outputs: Mapping[str, int]

    @property
    def inputs(self) -> dict[str, int]:
        """Name → index of every input node."""
        return {str(node.value): index for index, node in enumerate(self.nodes) if node.op == INPUT}


@dataclass(frozen=True)
class Param:
    """A parameter that is a tensor; numbers are constants of the graph.

    Args:
        name: field of `params` in the step.
        per_channel: size C along axis 1 of a single step; otherwise one value for all.
        learnable: a gradient is wanted.
    """

    name: str
    per_channel: bool = False
    learnable: bool = True


# Compared by identity, which is fast, because programs are keys of caches. To compare contents, compare `key`.
@dataclass(frozen=True, eq=False)
class Program:
    """Everything that a backend needs to run one neuron.

    Args:
        name: class name of the neuron, for messages.
        key: content hash of everything below.
        structure: the same hash without the values of `numbers`: programs of one structure can share compiled code
            that takes the numbers as arguments.
        numbers: the values of the constants that have a slot.
        forward: one step. Inputs `x`, `state.NAME`, `param.NAME`; outputs `out`, `state.NAME`.
        backward: its vector-Jacobian product. Inputs: those of `forward`, `grad.out`, `grad.state.NAME` (of the next
            state); outputs `grad.x`, `grad.state.NAME` (of the incoming state), `grad.param.NAME` (learnable ones, per
            element: the backend sums them).
        states: names of the states, in the order in which a backend's `run` and `run_bwd` take them.
        params: the tensor parameters, likewise.
        record: states whose sequence of post-step values is returned; the gradient of a recorded step is added to
            `grad.state`.
    """

    name: str
    key: str
    structure: str
    numbers: tuple[float, ...]
    forward: Graph
    backward: Graph
    states: tuple[str, ...]
    params: tuple[Param, ...] = ()
    record: tuple[str, ...] = ()
