"""Trainer: owns the training loop and its own state; owns no file.

`spike run` builds the net and the data, then calls `fit` with a `RunContext`, through which everything that leaves the
loop goes: metrics, progress, checkpoints, hooks. The same trainer works in a notebook with any object of that shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch
    from torch import nn

    from spikecore.interfaces.dataset import Split

T = TypeVar("T")


@dataclass(frozen=True)
class TrainerCapabilities:
    """What a trainer promises.

    Args:
        gradient: trains by backpropagation, so the model must be differentiable.
        resumable: `state_dict` restores the loop bit-exactly, also in the middle of an epoch.
    """

    gradient: bool = True
    resumable: bool = True


@dataclass(frozen=True)
class Task:
    """What is trained: the net with its encoder, and the data.

    Args:
        model: maps `[T, B, ...]` to `[T, B, num_classes]`; already on the context's device.
        encoder: maps `[B, ...]` to `[T, B, ...]`.
        train, test: splits of samples `(x, label)`.
        num_classes: number of labels.
        is_sequence: samples already have a time axis.
    """

    model: nn.Module
    encoder: nn.Module
    train: Split
    test: Split
    num_classes: int
    is_sequence: bool = False


@runtime_checkable
class RunContext(Protocol):
    """What a run gives to its trainer."""

    device: torch.device
    dtype: torch.dtype
    """Compute dtype: float32, or the autocast dtype of `run.precision`."""
    generator: torch.Generator
    """The run's only source of random numbers (CPU); its state is part of every checkpoint."""

    def log(self, **metrics: float | int | str) -> None:
        """Append one line to `metrics.jsonl`."""

    def checkpoint(self, score: float | None = None) -> None:
        """A safe point: the run may save trainer, model and generator now. `score`: higher is better, for `best`."""

    def epoch_end(self, epoch: int, metrics: dict[str, float]) -> None:
        """Tell the plugins (`spike_epoch_end`)."""

    def progress(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Iterate with a progress bar; silent when not on a terminal."""

    def timed(self, part: str) -> Any:
        """Context manager: counts the time inside under `part` (`data`, `forward`, `backward`, `evaluate` …)."""


@runtime_checkable
class Trainer(Protocol):
    """What callers rely on."""

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: ClassVar[TrainerCapabilities]
    config: Any

    def fit(self, task: Task, context: RunContext) -> dict[str, float]:
        """Train from the current state to the end of the schedule; returns the final metrics (`test_accuracy` …)."""

    def evaluate(self, task: Task, context: RunContext) -> dict[str, float]:
        """Metrics of the model as it is, on the test split."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, lists and dicts only: it is saved without pickle."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; takes effect in the next `fit`."""
