"""Model: a net built from a neuron factory, the input shape and the number of outputs.

x [T, B, *input_shape] → [T, B, num_outputs]       in multi-step mode

A model may import weights that others published, and ship weights of its own (`WeightedModel`):

    spike convert-weights resnet18.pth --from torchvision --model my_resnet --out resnet18.safetensors \\
        --input-shape 3,224,224 --num-outputs 1000
    create("model", "my_resnet", make_neuron, (3, 224, 224), 1000, weights="imagenet")      a name among `weights()`
    create("model", "my_resnet", make_neuron, (3, 224, 224), 1000, weights=Path("resnet18.safetensors"))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from spikecore.interfaces.dataset import TargetKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor, nn


@dataclass(frozen=True)
class ModelCapabilities:
    """What a model promises.

    Args:
        min_input_size: smallest height and width it accepts; 0 when any.
        input_rank: the rank of `input_shape` it needs (3 for `[C, H, W]`); None when any.
        step_modes: the step modes the built net can run in.
        targets: what its output can be trained for: `class` (the largest score), `value` (numbers of any size and sign,
            as a mean over time), `sequence` (such numbers in every step), `items`.
    """

    min_input_size: int = 0
    input_rank: int | None = None
    step_modes: tuple[str, ...] = ("single", "multi")
    targets: tuple[TargetKind, ...] = ("class", "value", "sequence")


@dataclass(frozen=True)
class ModelInfo:
    """The size of a model as it was published, shown by `spike info model NAME`; a class attribute `info`.

    Args:
        parameters: how many numbers are learned, those of neurons excluded.
        macs: multiplications and additions, in pairs, of convolutions, linear layers and matrix products, for one
            sample in one time step.
        input_shape: for which the two hold, without T and B.
        num_outputs: likewise.
        reference: where the model was published.
    """

    parameters: int
    macs: int
    input_shape: tuple[int, ...]
    num_outputs: int
    reference: str


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


@runtime_checkable
class WeightedModel(Model, Protocol):
    """A model that imports or ships weights; `spikecore.nn.Model` does neither unless a subclass overrides it."""

    weight_sources: ClassVar[tuple[str, ...]]
    """Names of what `import_weights` reads, as users type them after `--from`: `torchvision`, `spikingjelly`."""

    def import_weights(self, source: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The `state_dict` of this net, from the tensors of another one; this net itself stays as it is.

        Args:
            source: one of `weight_sources`.
            tensors: name → tensor, as the source's files hold them.

        Returns:
            Every key of `self.state_dict()`; whether names and shapes are this net's is checked by the caller.

        Raises:
            ConversionError: no such source, or the tensors are not what that source writes.
        """

    @classmethod
    def weights(cls) -> Mapping[str, Path]:
        """Name → a safetensors file that ships with the model, as `spike convert-weights` writes it."""
