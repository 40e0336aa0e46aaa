"""Half precision: states and parameters are float32 then, and so is the arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of states and parameters, for input of this dtype."""
    return torch.float32 if dtype in HALF else dtype


def widen(x: Tensor) -> Tensor:
    """The values in the dtype of the state; x itself unless it is in half precision."""
    return x.float() if x.dtype in HALF else x
