"""`fold_time`: run any stateless module over a sequence in one call, `[T, B, ...]` as `[T * B, ...]`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikecore.errors import ShapeError, StateError
from spikecore.nn.state import Stateful


class FoldTime(nn.Module):
    """Wraps a stateless module; in single-step mode the module is called as it is.

    Raises:
        StateError: the module contains a neuron, whose steps must not be taken for batch entries.
    """

    def __init__(self, module: nn.Module, step_mode: str = "multi") -> None:
        super().__init__()
        held = [type(part).__name__ for part in module.modules() if isinstance(part, Stateful)]
        if held:
            raise StateError(
                f"fold_time takes stateless modules; this one holds {', '.join(held)}: wrap the others only"
            )
        self.module = module
        self.step_mode = step_mode

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, ...]` → `[T, B, ...]`, or `[B, ...]` → `[B, ...]` in single-step mode."""
        if self.step_mode == "single":
            single: Tensor = self.module(x)
            return single
        if x.dim() < 2:
            raise ShapeError(f"fold_time takes [T, B, ...] in step_mode 'multi', got {tuple(x.shape)}")
        folded = self.module(x.flatten(0, 1))
        return torch.unflatten(folded, 0, (x.shape[0], x.shape[1]))


def fold_time(module: nn.Module) -> FoldTime:
    """Let a stateless module (convolution, norm, pooling, …) take sequences."""
    return FoldTime(module)
