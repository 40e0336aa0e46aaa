"""Half precision: float16 and bfloat16 are storage. Steps compute, and states are kept, in float32."""

from __future__ import annotations

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


def state_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which the state of a neuron with input `x` is kept."""
    return torch.float32 if x.dtype in HALF else x.dtype


def widened(x: Tensor) -> Tensor:
    """`x` in the dtype in which a step computes: float32 in place of half precision."""
    return x.float() if x.dtype in HALF else x
