"""What a neuron takes: floating-point tensors. Half precision is storage; steps and states are in float32."""

from __future__ import annotations

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
DTYPES = frozenset((*HALF, torch.float32, torch.float64))
"""What a neuron takes: torch's narrower floating-point dtypes have no arithmetic."""
STRIDED = torch.strided


def state_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which the state of a neuron with input `x` is kept."""
    return torch.float32 if x.dtype in HALF else x.dtype


def widened(x: Tensor) -> Tensor:
    """`x` in the dtype in which a step computes: float32 in place of half precision."""
    return x.float() if x.dtype in HALF else x


def check_input(name: str, x: object) -> None:
    """Refuse what no neuron takes.

    Args:
        name: of the neuron, for the message.
        x: the input.

    Raises:
        TypeError: it is no tensor, not floating point of 16 bits at least, or sparse.
    """
    if not isinstance(x, Tensor):
        raise TypeError(not_a_tensor(name, x))
    if x.dtype not in DTYPES:
        raise TypeError(f"{name} takes floating-point input, got {x.dtype}: call .float() on it")
    if x.layout is not STRIDED:
        raise TypeError(f"{name} takes dense input, got {x.layout}: call .to_dense() on it")


def not_a_tensor(name: str, x: object) -> str:
    """What to say to an input of another type."""
    module = type(x).__module__
    cure = "torch.from_numpy(x).float()" if module == "numpy" else "torch.as_tensor(x, dtype=torch.float32)"
    return f"{name} takes a tensor, got {module}.{type(x).__name__}: give it {cure}"
