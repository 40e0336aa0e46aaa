"""The explicit form of a net: parameters and state go in, output and state come out, nothing is kept.

    step, init_state = functional(net)
    out, state = step(params, x, state)

For `torch.func`, `torch.export`, activation checkpointing and compilers, which want functions without memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.errors import StateError
from spikecore.nn.state import State, carried, checked_state, stateful

NetState = dict[str, State]
Step = Callable[[Mapping[str, Tensor], Any, Mapping[str, Mapping[str, Tensor]]], tuple[Any, NetState]]
InitState = Callable[[Any], NetState]


def functional(net: nn.Module) -> tuple[Step, InitState]:
    """`(step, init_state)` of any net.

    `step(params, x, state) -> (out, state)` runs the net once in its step mode: one step of `[B, ...]`, or a sequence
    `[T, B, ...]` of which `state` is then before the first and after the last step. `params` are all parameters and
    buffers by name, `state` is a dictionary by qualified module name. `init_state(example_input) -> state` gives the
    state before the first step, for inputs like the example.

    Gradients flow through `params`, `x` and `state`. The net itself stays as it is: its own state, and `recorded` of
    its neurons, are untouched. (Batch norm in training mode updates the buffers that it is given, in place.)

    Args:
        net: any module; `x` may be whatever its `forward` takes as its one argument.

    Raises:
        StateError: in `step`: `params` or `state` do not belong to this net.
        StateShapeError: in `step`: the state belongs to another batch shape, device or dtype.

    Example:
        >>> from spikecore.nn import LIF
        >>> lif = LIF(tau=2.0, step_mode="single", learnable=("tau",))
        >>> step, init_state = functional(lif)
        >>> x, params = torch.full((1, 1), 1.5), dict(lif.named_parameters())
        >>> state = init_state(x)
        >>> out, state = step(params, x, state)
        >>> out.item(), state[""]["v"].item()
        (0.0, 0.75)
        >>> out, state = step(params, x, state)
        >>> out.item(), state[""]["v"].item()
        (1.0, 0.0)
    """

    def step(params: Mapping[str, Tensor], x: Any, state: Mapping[str, Mapping[str, Tensor]]) -> tuple[Any, NetState]:
        _check_names(net, params)
        given = checked_state(stateful(net), state)
        missing = [name or "(the net itself)" for name, value in given.items() if value is None]
        if missing:
            raise StateError(f"no state for {', '.join(missing)}: start from init_state(example_input)")
        with carried(net) as memories:
            for name, memory in memories.items():
                memory.state = given[name]
            out = torch.func.functional_call(net, dict(params), (x,))
            return out, {name: dict(memory.state or {}) for name, memory in memories.items()}

    def init_state(example_input: Any) -> NetState:
        buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}  # batch norm counts what it sees
        with torch.no_grad(), carried(net) as memories:
            torch.func.functional_call(net, buffers, (example_input,))
            unused = [name for name, memory in memories.items() if memory.initial is None]
            if unused:
                raise StateError(f"the net did not call {', '.join(unused)}, so the form of its state is not known")
            return {name: dict(memory.initial or {}) for name, memory in memories.items()}

    return step, init_state


def _check_names(net: nn.Module, params: Mapping[str, Tensor]) -> None:
    wanted = {name for name, _ in net.named_parameters()} | {name for name, _ in net.named_buffers()}
    if wanted == set(params):
        return
    missing, unknown = sorted(wanted - set(params)), sorted(set(params) - wanted)
    problems = [f"without {', '.join(missing)}"] if missing else []
    problems += [f"with unknown {', '.join(unknown)}"] if unknown else []
    raise StateError(
        f"params {' and '.join(problems)}: expected every parameter and buffer, "
        "{**dict(net.named_parameters()), **dict(net.named_buffers())}"
    )
