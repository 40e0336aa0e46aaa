"""Does anything have to see an operator, or can a backend be called on memory as it is?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from spikecore.torch_internals import (
    has_forward_derivatives,
    is_zero_tensor,
    num_dispatch_modes,
    peek_transform,
    tracing_state,
)


def is_transformed() -> bool:
    """Is a transform of `torch.func` at work?"""
    return not torch.compiler.is_compiling() and peek_transform() is not None


def is_plain(tensors: Sequence[Tensor | None]) -> bool:
    """Nothing that needs to see the operator is at work: no compiler, tracer, transform or mode, no tensor subclass.

    And all tensors are in memory.
    """
    if torch.compiler.is_compiling() or peek_transform() is not None or num_dispatch_modes():
        return False
    if tracing_state() is not None or has_forward_derivatives():
        return False
    for tensor in tensors:
        if tensor is None:
            continue
        kind = type(tensor)
        if (kind is not Tensor and kind is not Parameter) or tensor.is_neg() or is_zero_tensor(tensor):
            return False
    return True


def in_memory(tensor: Any) -> Any:
    """The same values where a backend can read them.

    Not in memory are a lazily negated view (`z.conj().imag`: torch negates when it reads) and zeros that torch only
    thinks of. Its dispatcher would see to both, but not in lists that may hold None.
    """
    if tensor is None:
        return None
    if tensor.is_neg():
        return tensor.resolve_neg()
    return tensor.new_zeros(tensor.shape) + tensor if is_zero_tensor(tensor) else tensor


def has_tangent(tensors: Sequence[Tensor]) -> bool:
    """Is a forward-mode derivative wanted?"""
    if not has_forward_derivatives():
        return False
    unpack: Any = forward_ad.unpack_dual
    return any(unpack(tensor).tangent is not None for tensor in tensors)
