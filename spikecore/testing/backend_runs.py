"""One neuron on one backend, with all that comes out: values, states, recorded sequences, gradients."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from spikecore.nn import Neuron, get_state, set_state, streaming

FLOATS = (torch.float32, torch.float64)
SURROGATES: tuple[dict[str, Any], ...] = (
    {"name": "atan"},
    {"name": "sigmoid", "alpha": 3.0},
    {"name": "piecewise_quadratic"},
    {"name": "piecewise_exponential", "alpha": 1.5},
    {"name": "erf"},
    {"name": "rectangular", "alpha": 0.7},
    {"name": "soft_sign"},
    {"name": "superspike", "alpha": 2.0},
    {"name": "sigmoid", "spiking": False},
    {"name": "piecewise_exponential", "spiking": False},
)
SLOPES: tuple[dict[str, Any], ...] = (
    {"surrogate": {"name": "sigmoid", "alpha": 3.0}, "learnable": ("surrogate.alpha",)},
    {"surrogate": {"name": "rectangular", "alpha": 0.7}, "learnable": ("surrogate.alpha",), "reset": "soft"},
    {"surrogate": {"name": "atan", "spiking": False}, "learnable": ("surrogate.alpha",)},
)
RESETS: tuple[dict[str, Any], ...] = (
    {},
    {"reset": "soft"},
    {"detach_reset": True, "v_reset": 0.2},
    {"reset": "soft", "detach_reset": True, "v_reset": -0.1},
)
PARAMETERS: tuple[dict[str, Any], ...] = (
    {"v_threshold": 0.8, "learnable": ("v_threshold",)},
    {"v_threshold": [0.5, 0.9, 1.4], "learnable": ("v_threshold", "v_reset"), "reset": "soft"},
    {"v_threshold": [0.5, 0.9, 1.4]},
)


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Currents at which IF and LIF fire now and then."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (drawn * 1.5 + 0.3).to(dtype)


def outcome(neuron: Neuron, x: Tensor, strided: bool = False) -> dict[str, Any]:
    """Everything that one sequence `x` `[T, B, ...]` gives; states start at 0.1, all of them recorded.

    Args:
        neuron: on the backend that is looked at.
        x: the input.
        strided: states and incoming gradients are not contiguous.
    """
    given = x.detach().requires_grad_()
    neuron.record = tuple(neuron.state)
    start = {}
    for name, value in neuron.initial_state(x.new_empty(x.shape[1:])).items():
        full = torch.full((), 0.1, dtype=value.dtype, device=x.device).expand(value.shape)
        start[name] = (full if strided else full.clone()).detach().requires_grad_()
    with streaming(neuron):
        set_state(neuron, {"": start})
        out = neuron(given)
        finals = get_state(neuron)[""] or {}
        recorded = dict(neuron.recorded)
    results = [out, *finals.values(), *recorded.values()]
    inputs = [given, *start.values(), *neuron.parameters()]
    arrived: Sequence[Tensor | None] = [None] * len(inputs)
    if any(result.requires_grad for result in results):
        total = sum(((result * weights(result, strided)).sum() for result in results), x.new_zeros(()))
        arrived = torch.autograd.grad(total, inputs, allow_unused=True)
    names = ["x", *(f"state {name}" for name in start), *(name for name, _ in neuron.named_parameters())]
    gradients = {}
    for name, value, gradient in zip(names, inputs, arrived, strict=True):
        gradients[name] = torch.zeros_like(value) if gradient is None else gradient
    return {
        "output": out.detach(),
        "final state": {name: value.detach() for name, value in finals.items()},
        "recorded": {name: value.detach() for name, value in recorded.items()},
        "gradient of": gradients,
    }


def weights(like: Tensor, strided: bool) -> Tensor:
    """What each element counts in the sum whose gradient is taken; `strided`: the same for all, with stride 0."""
    if strided:
        return torch.ones((), dtype=like.dtype, device=like.device).expand(like.shape)
    count = like.numel()
    values = torch.linspace(-1, 2, max(count, 1), device=like.device)[:count]
    return values.to(like.dtype).view(like.shape)


@contextmanager
def poisoned(*shapes: tuple[int, ...]) -> Iterator[None]:
    """Inside, memory that torch hands out holds NaN; the heap's free blocks of these shapes' sizes do as well."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    # Several of each size, held at once: the allocator then has that many free blocks with NaN in them.
    blocks = [torch.full(shape, float("nan"), dtype=dtype) for shape in shapes for dtype in FLOATS for _ in range(4)]
    del blocks
    gc.collect()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
