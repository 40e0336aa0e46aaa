"""Where two spike trains diverge. Both are right only if the potential is within a few ulp of the threshold.

Libraries compute `exp`, `tanh` and similar functions with different last bits, so a potential that just reaches the
threshold in one library may just miss it in another. A spike that differs elsewhere is a fault, however rare.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from spikecore.dynamics import Graph, Program
from spikecore.dynamics.evaluate import evaluate
from spikecore.dynamics.graph import SPIKE
from spikecore.nn import Neuron

NEAR_ULP = 4.0
"""Units in the last place of the threshold, or of the membrane where that is larger."""


def first_mismatches(neuron: Neuron, x: Tensor, start: Mapping[str, Tensor], got: Tensor, want: Tensor) -> Tensor:
    """How far h was from the threshold, for each element whose spikes differ, in the first step where they do.

    Args:
        neuron: computes `want`, with the reference's operations, from `start`.
        x: its input `[T, B, ...]`.
        start: name → state before the first step `[B, ...]`.
        got: the other's spikes `[T, B, ...]`.
        want: the neuron's.

    Returns:
        `[K]`, in units in the last place, for the K elements that differ anywhere; NaN if the step has no threshold.
    """
    graph, spikes = _with_distances(neuron.program())
    given = {f"param.{name}": value for name, value in _params(neuron, x).items()}
    state = {f"state.{name}": value for name, value in start.items()}
    open_ = torch.ones_like(want[0], dtype=torch.bool)  # elements that have not differed so far
    from_threshold: list[Tensor] = []
    with torch.no_grad():
        for current, ours, other in zip(x.unbind(0), got.unbind(0), want.unbind(0), strict=True):
            wide = current if current.dtype == torch.float64 else current.float()
            values = evaluate(graph, {"x": wide, **state, **given})
            here = open_ & (ours != other)
            if bool(here.any()):
                distances = [_ulps(values, name, wide)[here] for name in spikes]
                if distances:
                    from_threshold.append(torch.stack(distances).amin(0))
                else:
                    from_threshold.append(torch.full_like(wide[here], torch.nan))
                open_ &= ~here
            state = {name: torch.as_tensor(values[name]).expand(wide.shape) for name in state}
    return torch.cat(from_threshold) if from_threshold else x.new_empty(0)


def _with_distances(program: Program) -> tuple[Graph, list[str]]:
    """The step with more outputs: each spike's u = h - v_threshold, and the two that u comes from."""
    graph, names = program.forward, []
    outputs = dict(graph.outputs)
    for index, node in enumerate(graph.nodes):
        if node.op == SPIKE:
            u = node.args[1]
            names.append(f"spike.{index}")
            outputs[f"spike.{index}"] = u
            for place, arg in enumerate(graph.nodes[u].args or (u,)):
                outputs[f"spike.{index}.{place}"] = arg
    return Graph(graph.nodes, outputs), names


def _ulps(values: Mapping[str, object], name: str, like: Tensor) -> Tensor:
    terms = [value for other, value in values.items() if other.startswith(f"{name}.")]
    sizes = [torch.as_tensor(term, dtype=like.dtype).abs().expand(like.shape) for term in terms]
    largest = torch.stack(sizes).amax(0)
    ulp = torch.nextafter(largest, largest.new_full((), torch.inf)) - largest
    return torch.as_tensor(values[name], dtype=like.dtype).abs().expand(like.shape) / ulp


def _params(neuron: Neuron, x: Tensor) -> dict[str, Tensor]:
    params = neuron.params_for(x[0])
    return {param.name: getattr(params, param.name) for param in neuron.program().params}
