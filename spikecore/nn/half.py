"""What a neuron takes: floating-point tensors. Half precision is storage; steps and states are in float32."""

from __future__ import annotations

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
DTYPES = frozenset((*HALF, torch.float32, torch.float64))
"""What a neuron takes: torch's narrower floating-point dtypes have no arithmetic."""


def state_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which the state of a neuron with input `x` is kept."""
    return torch.float32 if x.dtype in HALF else x.dtype


def widened(x: Tensor) -> Tensor:
    """`x` in the dtype in which a step computes: float32 in place of half precision."""
    return x.float() if x.dtype in HALF else x


def not_a_tensor(name: str, x: object) -> str:
    """What to say to an input of another type."""
    module = type(x).__module__
    kind = type(x).__name__ if module == "builtins" else f"{module}.{type(x).__name__}"
    cure = "torch.from_numpy(x).float()" if module == "numpy" else "torch.as_tensor(x, dtype=torch.float32)"
    return f"{name} takes a tensor, got {kind}: give it {cure}"
