"""Decides whether a call needs a torch operator, or may call the backend directly on the tensors' memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from spikecore.errors import BackendError
from spikecore.torch_internals import (
    has_forward_derivatives,
    is_batch_of_autograd,
    is_zero_tensor,
    num_dispatch_modes,
    peek_transform,
    tracing_state,
)


def is_transformed() -> bool:
    """Is a transform of `torch.func` active?"""
    return not torch.compiler.is_compiling() and peek_transform() is not None


def is_plain(tensors: Sequence[Tensor | None]) -> bool:
    """Is it safe to call the backend directly: no compiler, tracer, transform, mode or tensor subclass is active?

    All tensors must have their values in memory, too.
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
    """The tensor with its values in memory, where a backend can read them.

    Two tensors have none: a lazily negated view (`z.conj().imag`, which torch negates when it reads) and torch's
    symbolic zeros. Its dispatcher resolves both, but not in lists that may contain None.
    """
    if tensor is None:
        return None
    if tensor.is_neg():
        return tensor.resolve_neg()
    return tensor.new_zeros(tensor.shape) + tensor if is_zero_tensor(tensor) else tensor


def refuse_batches(grads: Sequence[Tensor | None]) -> None:
    """Refuse the gradients of a backward pass that stand for several each.

    Raises:
        BackendError: they do, as with `is_grads_batched` of `torch.autograd.grad`.
    """
    if any(grad is not None and is_batch_of_autograd(grad) for grad in grads):
        raise BackendError(
            "several gradients at once (is_grads_batched of torch.autograd.grad, vectorize of "
            "torch.autograd.functional) reached a backend; it takes those of torch.func.vmap: "
            "torch.func.vmap(lambda v: torch.autograd.grad(y, x, v, retain_graph=True))(grads); or call "
            "set_backend(net, 'torch') and set_products(net, 'dense')"
        )


def has_tangent(tensors: Sequence[Tensor]) -> bool:
    """Is a forward-mode derivative wanted?"""
    if not has_forward_derivatives():
        return False
    unpack: Any = forward_ad.unpack_dual
    return any(unpack(tensor).tangent is not None for tensor in tensors)
