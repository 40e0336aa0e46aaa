"""An emulator of the device: graphs become a program of its instructions, which is carried out one by one.

The device knows no neuron. Any step that consists of its instructions runs, also one that is written tomorrow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from spikecore.backends.kit import BackendCapabilities, Interpreter, Support, check_support
from spikecore.dynamics import CONST, INPUT, Graph, Program

INSTRUCTIONS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "neg": torch.neg,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "eq": torch.eq,
    "ne": torch.ne,
    "and": torch.logical_and,
    "or": torch.logical_or,
    "not": torch.logical_not,
    "min": torch.minimum,
    "max": torch.maximum,
    "clamp": torch.clamp,
    "where": torch.where,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "atan": torch.atan,
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "abs": torch.abs,
    "sign": torch.sign,
    "floor": torch.floor,
    "round": torch.round,
    "spike": lambda value, *_: value,  # its distance and derivative are read by the graph of the gradient
    "detach": lambda value: value,
}


class AcmeEmulator(Interpreter):
    """The emulator of acme-npu: slow, and exact. `auto` does not take it."""

    capabilities: ClassVar[BackendCapabilities] = BackendCapabilities(
        priority=-10, devices=("cpu",), dtypes=("float32", "float64")
    )

    def supports(self, program: Program, device: torch.device, dtype: torch.dtype) -> Support:
        """What consists of the instructions."""
        return check_support(self.capabilities, INSTRUCTIONS, program, device, dtype)

    def evaluate(self, graph: Graph, inputs: Mapping[str, Tensor]) -> Mapping[str, Any]:
        """Carry out one step, or its gradient."""
        like = inputs["x"]
        registers: list[Tensor] = []
        for node in graph.nodes:
            if node.op == INPUT:
                registers.append(inputs[str(node.value)])
            elif node.op == CONST:
                dtype = torch.bool if node.is_bool else like.dtype
                registers.append(_constant(float(node.value or 0.0), dtype))
            else:
                registers.append(INSTRUCTIONS[node.op](*(registers[index] for index in node.args)))
        return {name: registers[index] for name, index in graph.outputs.items()}


@lru_cache(maxsize=1024)
def _constant(value: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor(value, dtype=dtype)
