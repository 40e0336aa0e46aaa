"""A small task and a context that keeps what a trainer tells it: what the trainer's checks use."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spikecore.interfaces.processes import Processes
from spikecore.interfaces.show import Shown
from spikecore.interfaces.task import Task
from spikecore.nn import LIF, Direct
from spikecore.run.gallery import Gallery

T = TypeVar("T")
NUM_CLASSES, NUM_STEPS = 3, 4


@dataclass(frozen=True)
class Patterns:
    """Images `[1, 4, 4]` of three classes, told apart by their bright rows; as sequences `[T, 1, 4, 4]` if asked."""

    size: int
    seed: int
    is_sequence: bool = False

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < self.size:
            raise IndexError(index)
        label = index % NUM_CLASSES
        generator = torch.Generator().manual_seed(self.seed * 1000 + index)
        x = torch.rand(1, 4, 4, generator=generator) * 0.4
        x[:, label : label + 2] += 0.6
        return (x.expand(NUM_STEPS, -1, -1, -1).clone() if self.is_sequence else x), label


def small_task(is_sequence: bool = False, seed: int = 0) -> Task:
    """A net of one hidden layer of LIF neurons on the reference backend, made from `seed`, and 48 + 24 patterns."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(-3), nn.Linear(16, 20), LIF(backend="torch"), nn.Linear(20, NUM_CLASSES))
    splits = Patterns(48, 1, is_sequence), Patterns(24, 2, is_sequence)
    return Task(net, Direct(num_steps=NUM_STEPS, sequences=is_sequence), *splits, NUM_CLASSES, is_sequence)


def loss_and_accuracy(task: Task) -> tuple[float, float]:
    """Of the model as it is, on the training split; measured here, not by the trainer."""
    train = task.split("train")
    samples = [train[index] for index in range(len(train))]
    x, label = torch.stack([x for x, _ in samples]), torch.tensor([label for _, label in samples])
    training = task.model.training
    with torch.no_grad():
        logits = task.model.eval()(x.expand(NUM_STEPS, *x.shape)).mean(0)
    task.model.train(training)
    return float(nn.functional.cross_entropy(logits, label)), float((logits.argmax(-1) == label).float().mean())


@dataclass
class Snapshot:
    """All that a run keeps at a safe point."""

    trainer: dict[str, Any]
    model: dict[str, Tensor]
    generator: Tensor
    num_events: int


@dataclass
class Recorder(Processes):
    """A `RunContext` that writes down every call.

    Args:
        trainer, model: what a safe point keeps a copy of; nothing is kept without them.
        stop_at: the number of the safe point at which the user presses Ctrl-C.
    """

    seed: int = 0
    trainer: Any = None
    model: nn.Module | None = None
    stop_at: int | None = None
    events: list[tuple[str, Any]] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    num_checkpoints: int = 0
    gallery: Gallery = field(default_factory=Gallery)

    def __post_init__(self) -> None:
        self.generator = self.rank_generator = torch.Generator().manual_seed(self.seed)

    def log(self, **metrics: float | int | str) -> None:
        """See `RunContext`."""
        self.events.append(("log", dict(metrics)))

    def checkpoint(self, score: float | None = None) -> None:
        """See `RunContext`."""
        self.num_checkpoints += 1
        if self.num_checkpoints == self.stop_at:
            raise KeyboardInterrupt
        if score is not None:
            self.events.append(("checkpoint", score))
        if self.trainer is not None and self.model is not None:
            kept = copy.deepcopy((self.trainer.state_dict(), dict(self.model.state_dict())))
            self.snapshots.append(Snapshot(*kept, self.generator.get_state(), len(self.events)))

    def show(self, name: str, value: Shown) -> None:
        """See `RunContext`; what cannot be kept is refused as by a run."""
        self.gallery.show(name, value)

    def epoch_end(
        self,
        epoch: int,
        metrics: dict[str, float],
        *,
        num_epochs: int | None = None,
        count: int | None = None,
        unit: str = "samples",
    ) -> None:
        """See `RunContext`."""
        self.events.append(("epoch_end", (epoch, dict(metrics))))

    def progress(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """See `RunContext`."""
        yield from items

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """See `RunContext`."""
        yield
