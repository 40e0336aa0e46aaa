"""Does anything have to see an operator, or can a backend be called on memory as it is?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import _C, Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

_transforms = _C._functorch.peek_interpreter_stack
_num_modes = _C._len_torch_dispatch_stack
_tracing: Callable[[], object] = _C._get_tracing_state


def is_transformed() -> bool:
    """Is a transform of `torch.func` at work?"""
    return not torch.compiler.is_compiling() and _transforms() is not None


def is_plain(tensors: Sequence[Tensor | None]) -> bool:
    """Nothing that needs to see the operator is at work: no compiler, tracer, transform or mode, no tensor subclass.

    And all tensors are in memory.
    """
    if torch.compiler.is_compiling() or _transforms() is not None or _num_modes() or _tracing() is not None:
        return False
    if forward_ad._current_level >= 0:
        return False
    for tensor in tensors:
        if tensor is None:
            continue
        kind = type(tensor)
        if (kind is not Tensor and kind is not Parameter) or tensor.is_neg() or tensor._is_zerotensor():
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
    return tensor.new_zeros(tensor.shape) + tensor if tensor._is_zerotensor() else tensor


def has_tangent(tensors: Sequence[Tensor]) -> bool:
    """Is a forward-mode derivative wanted?"""
    if forward_ad._current_level < 0:
        return False
    unpack: Any = forward_ad.unpack_dual
    return any(unpack(tensor).tangent is not None for tensor in tensors)
