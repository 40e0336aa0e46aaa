"""What a trainer trains (`Task`), and what it builds that from (`Parts`).

`spike run` reads the configuration and gives the trainer its `Parts`; `Trainer.prepare(parts)` asks for what it needs,
in the order in which it needs it, and returns a `Task`. Nothing is built that the trainer does not ask for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from spikecore.errors import ContractError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from spikecore.interfaces.dataset import Dataset, Split


@dataclass(frozen=True)
class Task:
    """What is trained: the net, and the data where there are any.

    Args:
        model: maps `[T, B, *input_shape]` to `[T, B, num_outputs]`; already on the context's device. It is what
            `parts.model` returned, or an `nn.ModuleDict` of several such nets (actor and critic): then
            `spikecore.load` rebuilds it without the trainer. Any other net is rebuilt through the trainer.
        encoder: maps `[B, ...]` to `[T, B, ...]`, on the context's device; None where the trainer makes its sequences
            itself.
        train, test: splits of samples `(x, label)`; None where there are none, as with an environment. `test` is read
            once, at the end of training.
        num_outputs: size of the output's last axis; the number of classes of a classifier.
        is_sequence: samples already have a time axis.
        classes: names of the labels, where there are any.
        val: the split that models are compared on while they are trained; None for none.
    """

    model: nn.Module
    encoder: nn.Module | None = None
    train: Split | None = None
    test: Split | None = None
    num_outputs: int = 0
    is_sequence: bool = False
    classes: tuple[str, ...] = ()
    val: Split | None = None

    @property
    def splits(self) -> dict[str, Split]:
        """Those that there are, by name: `train`, `val`, `test`."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}

    def split(self, name: str) -> Split:
        """The split `train`, `val` or `test`, for a trainer that needs one.

        Raises:
            ContractError: the task has none of this name.
        """
        if name not in self.splits:
            there = ", ".join(self.splits) or "none"
            raise ContractError(f"this task has no split {name!r}, which its trainer needs (its splits: {there})")
        return self.splits[name]

    def sequence(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """A batch as the model takes it, `[T, B, *input_shape]`; x and generator are on one device.

        Args:
            x: `[B, ...]`; of sequences `[B, T, ...]`.
            generator: of an encoder that draws: `context.device_generator` while training, one that starts anew in an
                evaluation.

        Raises:
            ContractError: the task has no encoder.
        """
        if self.is_sequence:
            return x.transpose(0, 1)
        if self.encoder is None:
            raise ContractError("this task has no encoder: its trainer makes the sequences [T, B, ...] itself")
        encoded: Tensor = self.encoder(x, generator)
        return encoded


@runtime_checkable
class Parts(Protocol):
    """Builds what the configuration names, on request; for the roles in `capabilities.roles` only.

    Attributes:
        device: where the net goes; `model` moves its nets there itself.
        seed: `run.seed`. The global generators have been seeded with it.
    """

    device: torch.device
    seed: int

    def dataset(self) -> Dataset:
        """The dataset of `[dataset]`."""

    def encoder(self) -> nn.Module:
        """The encoder of `[encoder]`, on the device."""

    def make_neuron(self) -> nn.Module:
        """A new layer of the neurons of `[neuron]`, on the backend of `[backend]`."""

    def model(self, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
        """The net of `[model]`, on the device: `[T, B, *input_shape]` → `[T, B, num_outputs]`."""

    def build(self, role: str, *arguments: Any) -> Any:
        """What fills any role; the four methods above are this one, for the roles of these names."""

    def options(self, role: str) -> Any:
        """The checked `Config` of a role's table: of its component, or the one in the trainer's `role_configs`."""
