"""Model: a net built from a neuron factory, the input shape and the number of outputs.

x [T, B, *input_shape] → [T, B, num_outputs]       in multi-step mode
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


@dataclass(frozen=True)
class ModelCapabilities:
    """What a model promises.

    Args:
        min_input_size: smallest height and width it accepts; 0 when any.
        input_rank: the rank of `input_shape` it needs (3 for `[C, H, W]`); None when any.
        step_modes: the step modes the built net can run in.
    """

    min_input_size: int = 0
    input_rank: int | None = None
    step_modes: tuple[str, ...] = ("single", "multi")


@runtime_checkable
class Model(Protocol):
    """What callers rely on; also a `torch.nn.Module`. Subclass `spikecore.nn.Model`."""

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: ClassVar[ModelCapabilities]
    config: Any

    def __init__(
        self,
        make_neuron: Callable[[], nn.Module],
        input_shape: tuple[int, ...],
        num_outputs: int,
        **options: Any,
    ) -> None:
        """Raises `ShapeError` when `input_shape` (without T and B) does not suit the model."""

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, *input_shape]` → `[T, B, num_outputs]`; without T in single-step mode."""
