"""Small tasks, the parts that they are made of, and a context that keeps what a trainer tells it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spikecore.errors import ContractError
from spikecore.interfaces.dataset import DatasetCapabilities, DatasetInfo, TargetKind
from spikecore.interfaces.processes import Processes
from spikecore.interfaces.show import Shown
from spikecore.interfaces.task import Task
from spikecore.interfaces.trainer import TaskKind
from spikecore.nn import LIF, Direct
from spikecore.run.gallery import Gallery
from spikecore.run.order import EpochOrder

T = TypeVar("T")
NUM_CLASSES, NUM_VALUES, NUM_STEPS = 3, 2, 4
SIZES = {"train": 48, "val": 24, "test": 24}
TARGETS: dict[TaskKind, TargetKind] = {"value": "value", "sequence": "sequence"}
"""What a trainer learns from → the target of its small dataset; classes, for all others."""


@dataclass(frozen=True)
class Patterns:
    """Images `[1, 4, 4]` of three kinds, told apart by their bright rows; as sequences `[T, 1, 4, 4]` if asked.

    Labels are the kind k, as a class; or the two values (k - 1, k / 2); or, for the target `sequence`, these values of
    the image that each step shows: the kind moves on by one in every step.
    """

    size: int
    seed: int
    is_sequence: bool = False
    target: TargetKind = "class"

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        if not 0 <= index < self.size:
            raise IndexError(index)
        kind = index % NUM_CLASSES
        generator = torch.Generator().manual_seed(self.seed * 1000 + index)
        noise = torch.rand(1, 4, 4, generator=generator) * 0.4
        if self.target == "sequence":
            kinds = [(kind + step) % NUM_CLASSES for step in range(NUM_STEPS)]
            steps = torch.stack([_bright(noise, kind) for kind in kinds])
            return steps, torch.stack([_values(kind) for kind in kinds])
        x = _bright(noise, kind)
        if self.is_sequence:
            x = x.expand(NUM_STEPS, -1, -1, -1).clone()
        return x, kind if self.target == "class" else _values(kind)


def _bright(noise: Tensor, kind: int) -> Tensor:
    x = noise.clone()
    x[:, kind : kind + 2] += 0.6
    return x


def _values(kind: int) -> Tensor:
    return torch.tensor([kind - 1.0, kind / 2.0])


@dataclass(frozen=True)
class SmallDataset:
    """Patterns in three splits."""

    target: TargetKind = "class"
    is_sequence: bool = False
    name: str = "patterns"
    sample_shape: tuple[int, ...] = (1, 4, 4)
    splits: tuple[str, ...] = tuple(SIZES)

    @property
    def capabilities(self) -> DatasetCapabilities:
        """Its target."""
        return DatasetCapabilities(embedded=True, target=self.target)

    @property
    def info(self) -> DatasetInfo:
        """Three classes, or two values."""
        names = ("top", "middle", "bottom") if self.target == "class" else ("place", "half")
        return DatasetInfo("Patterns", names, self.sample_shape, "none", "none")

    @property
    def num_outputs(self) -> int:
        """Of classes or values."""
        return NUM_CLASSES if self.target == "class" else NUM_VALUES

    def split(self, name: str) -> Patterns:
        """`train`, `val` or `test`."""
        seed = 1 + list(SIZES).index(name)
        return Patterns(SIZES[name], seed, self.is_sequence, self.target)


class SmallParts:
    """`Parts` of a run with small ones: `SmallDataset`, the encoder `direct`, LIF neurons on the reference backend.

    Args:
        trainer: its roles, and the options that it declares for them, with their defaults.
        is_sequence: samples have a time axis.
    """

    device = torch.device("cpu")
    seed = 0

    def __init__(self, trainer: Any, is_sequence: bool = False) -> None:
        self._trainer = trainer
        target = TARGETS.get(trainer.capabilities.task, "class")
        self._dataset = SmallDataset(target, is_sequence or target == "sequence")

    def dataset(self) -> Any:
        """Patterns for what the trainer learns from."""
        self._expect("dataset")
        return self._dataset

    def encoder(self) -> nn.Module:
        """The same values in every step."""
        self._expect("encoder")
        return Direct(num_steps=NUM_STEPS, sequences=self._dataset.is_sequence)

    def make_neuron(self) -> nn.Module:
        """A layer of LIF neurons."""
        self._expect("neuron")
        return LIF(backend="torch")

    def model(self, input_shape: Sequence[int], num_outputs: int) -> nn.Module:
        """A net of one hidden layer."""
        self._expect("model")
        neuron = LIF(backend="torch")
        width = math.prod(input_shape)
        return nn.Sequential(nn.Flatten(-len(input_shape)), nn.Linear(width, 20), neuron, nn.Linear(20, num_outputs))

    def build(self, role: str, *arguments: Any) -> Any:
        """One of the four, by name."""
        makers = {"dataset": self.dataset, "encoder": self.encoder, "neuron": self.make_neuron, "model": self.model}
        if role not in makers:
            raise ContractError(f"the role {role!r} is not built by itself; parts.options({role!r}) has its options")
        return makers[role](*arguments)  # type: ignore[operator]

    def options(self, role: str) -> Any:
        """The options that the trainer declares for a role: its defaults, with those of its short run."""
        self._expect(role)
        if role not in self._trainer.role_configs:
            raise ContractError(
                f"the small parts have no options for the role {role!r}: override `make_task` in the suite"
            )
        short = getattr(self._trainer, "short_run", {}).get(role, {})
        return self._trainer.role_configs[role](**short)

    def _expect(self, role: str) -> None:
        if role not in self._trainer.capabilities.roles:
            roles = ", ".join(self._trainer.capabilities.roles) or "none"
            raise ContractError(f"prepare asked for the role {role!r}, which capabilities.roles do not name ({roles})")


def small_task(trainer: Any, is_sequence: bool = False, seed: int = 0) -> Task:
    """What the trainer prepares from the small parts, its weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        task: Task = trainer.prepare(SmallParts(trainer, is_sequence))
        return task


def train_outputs(task: Task) -> tuple[Tensor, list[int | Tensor]]:
    """Output `[T, N, num_outputs]` and labels of the training split; measured here, not by the trainer."""
    train = task.split("train")
    samples = [train[index] for index in range(len(train))]
    x = torch.stack([x for x, _ in samples])
    training = task.model.training
    with torch.no_grad():
        sequence = x.transpose(0, 1) if task.is_sequence else x.expand(NUM_STEPS, *x.shape)
        out: Tensor = task.model.eval()(sequence)
    task.model.train(training)
    return out, [label for _, label in samples]


class Spied:
    """A split that notes how many epochs were over when it was first read."""

    def __init__(self, split: Any, recorder: Recorder) -> None:
        self._split, self._recorder = split, recorder
        self.first_read: int | None = None

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Any:
        self._note()
        return self._split[index]

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._split, name)
        if name in ("__getitems__", "unaugmented"):
            self._note()
        return member

    def _note(self) -> None:
        if self.first_read is None:
            self.first_read = sum(kind == "epoch_end" for kind, _ in self._recorder.events)


@dataclass
class Snapshot:
    """All that a run keeps at a safe point."""

    trainer: dict[str, Any]
    large: dict[str, Any]
    model: dict[str, Tensor]
    generator: Tensor
    device_generator: Tensor
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
    weights: list[Mapping[str, Tensor] | None] = field(default_factory=list)
    """What was given at each safe point."""
    gallery: Gallery = field(default_factory=Gallery)
    order: EpochOrder = field(default_factory=EpochOrder)
    notes: list[str] = field(default_factory=list)
    """What it told the user."""

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        self.rank_generator = self.generator
        self.device_generator = torch.Generator(self.device).manual_seed(self.seed + 1)

    def log(self, **metrics: float | int | str) -> None:
        """See `RunContext`."""
        self.order.log(metrics)
        self.events.append(("log", dict(metrics)))

    def checkpoint(self, score: float | None = None, weights: Mapping[str, Tensor] | None = None) -> None:
        """See `RunContext`."""
        self.num_checkpoints += 1
        self.order.checkpoint(score)
        if self.num_checkpoints == self.stop_at:
            raise KeyboardInterrupt
        if score is not None:
            self.events.append(("checkpoint", score))
        self.weights.append(None if weights is None else copy.deepcopy(dict(weights)))
        if self.trainer is not None and self.model is not None:
            trainer, large, model = copy.deepcopy(
                (self.trainer.state_dict(), self.trainer.large_state_dict(), dict(self.model.state_dict()))
            )
            generators = self.generator.get_state(), self.device_generator.get_state()
            self.snapshots.append(Snapshot(trainer, large, model, *generators, len(self.events)))

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
        self.order.epoch_end(epoch, metrics)
        self.events.append(("epoch_end", (epoch, dict(metrics))))

    def note(self, text: str) -> None:
        """See `RunContext`."""
        self.notes.append(text)

    def progress(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """See `RunContext`."""
        yield from items

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """See `RunContext`."""
        yield
