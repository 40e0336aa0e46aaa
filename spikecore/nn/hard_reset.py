"""The hard reset on tensors under autograd: v = (1 - s) h + s v_reset, with finite h, as one node of its graph.

Autograd's own node for a limit masks the gradient, which costs as much as the rest of the reset. The mask is not needed
where h is limited for the sake of 0 · inf alone: such a neuron fired, and (1 - s) is 0 there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spikecore.torch_internals import apply_unchecked, has_forward_derivatives, transforms_active

LARGEST = 3.4028234663852886e38
"""The largest number of float32, in which states are kept at least."""


def runs_as_one(s: Any, h: Any, v_reset: Any) -> bool:
    """Whether `hard_reset` may be used: plain tensors, a number, and nothing but autograd looks on."""
    is_plain = isinstance(h, Tensor) and isinstance(s, Tensor) and isinstance(v_reset, int | float)
    if not is_plain or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    # Where s is detached, the limit must mask the gradient of a potential that is NaN: nothing else does. A mask in
    # this node was measured to cost as much as autograd's own, so there is nothing to gain.
    return s.requires_grad and not transforms_active() and not has_forward_derivatives()


def hard_reset(s: Tensor, h: Tensor, v_reset: float) -> Tensor:
    """`v` after the output `s`, from the charged potential `h`, all of one shape."""
    v: Tensor = _apply(s, h, v_reset)
    return v


class _HardReset(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor, h: Tensor, v_reset: float) -> Tensor:
        finite, kept = h.clamp_max(LARGEST), 1 - s
        ctx.save_for_backward(s, h, kept, finite)
        ctx.set_materialize_grads(False)
        ctx.v_reset = v_reset
        return kept * finite + s * v_reset

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        if grad is None:
            return None, None, None
        s, h, kept, finite = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives need their connection to s and h
            finite, kept = h.clamp_max(LARGEST), 1 - s
        grad_s = grad * ctx.v_reset - grad * finite if ctx.needs_input_grad[0] else None
        return grad_s, grad * kept, None


_apply = apply_unchecked(_HardReset)
