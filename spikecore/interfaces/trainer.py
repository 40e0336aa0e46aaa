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
    from torch import Tensor, nn

    from spikecore.interfaces.dataset import Split

T = TypeVar("T")


@dataclass(frozen=True)
class TrainerCapabilities:
    """What a trainer promises.

    Args:
        gradient: trains by backpropagation, so the model must be differentiable.
        resumable: `state_dict` restores the loop bit-exactly at every safe point, also in the middle of an epoch.
        extendable: options that may be larger when a run is resumed (`epochs`): the schedule goes on.
    """

    gradient: bool = True
    resumable: bool = True
    extendable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """What is trained: the net with its encoder, and the data.

    Args:
        model: maps `[T, B, ...]` to `[T, B, num_classes]`; already on the context's device.
        encoder: maps `[B, ...]` to `[T, B, ...]`.
        train, test: splits of samples `(x, label)`.
        num_classes: number of labels.
        is_sequence: samples already have a time axis.
        classes: names of the labels, where the dataset has them.
    """

    model: nn.Module
    encoder: nn.Module
    train: Split
    test: Split
    num_classes: int
    is_sequence: bool = False
    classes: tuple[str, ...] = ()

    def sequence(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """A batch of samples `[B, ...]` as the model takes it, `[T, B, *input_shape]`."""
        if self.is_sequence:
            return x.transpose(0, 1)
        encoded: Tensor = self.encoder(x, generator)
        return encoded


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
        """A safe point: nothing is half done, and all that `fit` needs to go on is in `state_dict()`, the model and the
        random generators. Call it after every step, or at least after every epoch. The run saves when it is due, and
        always when there is a `score` (higher is better, for `best`); it may end here with KeyboardInterrupt.
        """

    def epoch_end(self, epoch: int, metrics: dict[str, float]) -> None:
        """Tell the plugins (`spike_epoch_end`)."""

    def progress(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Iterate with a progress bar; silent when not on a terminal."""

    def timed(self, part: str) -> Any:
        """Context manager: counts the time inside under `part` (`data`, `forward`, `backward`, `evaluate` …)."""


@runtime_checkable
class Trainer(Protocol):
    """What callers rely on.

    A trainer of classifiers may also have `confusion`: a tensor `[num_classes, num_classes]` of counts from its latest
    evaluation, rows the true class, columns the predicted one, or None; it is part of the report.
    """

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: ClassVar[TrainerCapabilities]
    config: Any

    def fit(self, task: Task, context: RunContext) -> dict[str, float]:
        """Train from the current state to the end of the schedule; returns the final metrics (`test_accuracy` …)."""

    def evaluate(self, task: Task, context: RunContext) -> dict[str, float]:
        """Metrics of the model as it is, on the test split."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, None, lists, tuples and dicts only: it is saved without pickle.

        Like an optimizer's it refers to live tensors, which training changes; it may also be asked for before `fit`.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; takes effect in the next `fit`, whose context has the random generators of then."""
