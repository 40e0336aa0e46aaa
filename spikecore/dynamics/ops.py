"""The operators of the neuron language, on tensors. Numbers mix freely with tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Spike(torch.autograd.Function):
    """Forward: the surrogate's `forward`; backward: its declared `derivative`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, surrogate: Any) -> Tensor:
        spikes: Tensor = surrogate.forward(u, surrogate.config)
        return spikes

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        u, ctx.surrogate = inputs
        ctx.save_for_backward(u)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return grad * ctx.surrogate.derivative(u, ctx.surrogate.config), None


def spike(u: Tensor, surrogate: Any) -> Tensor:
    """Θ(u) forward, `surrogate.derivative(u)` backward; the surrogate's primitive when it is not `spiking`."""
    if not surrogate.config.spiking:
        smooth: Tensor = surrogate.primitive(u, surrogate.config)
        return smooth
    spikes: Tensor = _Spike.apply(u, surrogate)  # type: ignore[no-untyped-call]
    return spikes


def detach(a: Any) -> Any:
    """`a`, with no gradient through it."""
    return a.detach() if isinstance(a, Tensor) else a


def where(condition: Tensor, a: Any, b: Any) -> Tensor:
    """`a` where the condition holds, else `b`; at least one of them a tensor.

    Raises:
        TypeError: both are numbers, so the result would have no dtype.
    """
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        raise TypeError(f"where(condition, {a!r}, {b!r}): one branch must be a tensor, so that the result has a dtype")
    return torch.where(condition, a, b)


def exp(a: Tensor) -> Tensor:
    """e to the power a."""
    return torch.exp(a)


def atan(a: Tensor) -> Tensor:
    """The arc tangent, in radians."""
    return torch.atan(a)


def sigmoid(a: Tensor) -> Tensor:
    """1 / (1 + exp(-a))."""
    return torch.sigmoid(a)
