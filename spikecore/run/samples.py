"""Inputs of a run that is over, as its net was fed: for looking at the net, and for comparing it with another form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spikecore.errors import ConfigError
from spikecore.interfaces.task import Task
from spikecore.registry import create
from spikecore.run.build import prepare
from spikecore.run.checkpoint import LAST
from spikecore.run.converted import beginning_of, is_converted
from spikecore.run.origin import Origin
from spikecore.run.sources import RUN, spread
from spikecore.trainers.batches import put_together
from spikecore.trainers.splits import task_split, unaugmented


@dataclass(frozen=True)
class Samples:
    """Some inputs.

    Args:
        x: `[T, B, *input_shape]`, on the CPU.
        labels: the class of each, `[B]`; None where they have none.
        source: where they come from, for messages.
    """

    x: Tensor
    labels: Tensor | None
    source: str


def samples_of(directory: str | Path, count: int, checkpoint: str = LAST) -> Samples:
    """Samples from a run's test split, encoded as in its evaluation, spread evenly over the split; always the same.

    A run without data gives the example of its trainer. For a converted net they are those of the run that it comes
    from, or of the dataset that calibrated it, as sequences of as many steps as it was converted for.

    Args:
        directory: the run directory, or one that `spike convert` wrote.
        count: how many; fewer where the split has fewer.
        checkpoint: whose encoder is used, where encoders learn.

    Raises:
        ConfigError: this is no run, its parts are not installed, or it has no data and its trainer gives no example.
        DatasetError: the data are not here, or damaged.
    """
    beginning = beginning_of(Path(directory)) if is_converted(Path(directory)) else None
    if beginning is not None and beginning.dataset is not None and beginning.about["kind"] != RUN:
        return of_dataset(beginning.dataset, count, beginning.num_steps)
    origin = Origin.of(Path(directory))
    resolved = origin.saved.reopen_with(origin.overrides)
    prepared = prepare(resolved, torch.device("cpu"), loaded_bytes=origin.loaded_bytes)
    task, trainer = prepared.task, prepared.trainer
    if task.test is None and task.train is None:
        example = trainer.example(task)
        if example is None:
            raise ConfigError(f"{directory}: this run has no data, and its trainer gives no example of an input")
        return Samples(example[:, :count].cpu(), None, "the trainer's example")
    restored = origin.restore(prepared, checkpoint)[0].task
    return from_split(restored, count, "test" if restored.test is not None else "train")


def from_split(task: Task, count: int, name: str, device: torch.device | None = None) -> Samples:
    """Samples of a split, without augmentation, spread evenly over it, encoded on the device of the encoder.

    Args:
        task: with this split, and with the encoder where its samples are no sequences.
        count: how many; fewer where the split has fewer.
        name: of the split.
        device: the encoder's, where x stays; None for the CPU.
    """
    split = unaugmented(task.split(name))
    indices = spread(len(split), count)
    samples = [split[index] for index in indices]
    batch = put_together(split, samples, task.is_sequence, indices=indices)
    device = device or torch.device("cpu")
    x = batch.x.to(device)
    if not task.is_sequence:
        x = task.sequence(x, torch.Generator(device).manual_seed(0))
    labels = [label for _, label in samples]
    are_classes = all(isinstance(label, int) for label in labels)
    source = f"{len(indices)} samples of the {name} split"
    if batch.mask is not None and not bool(batch.mask.all()):
        source += f", padded to {len(x)} steps (the padding is counted, too)"
    return Samples(x, torch.tensor(labels) if are_classes else None, source)


def of_dataset(name: str, count: int, num_steps: int | None = None) -> Samples:
    """Samples of a dataset, without encoder: of its test split where it has one, spread evenly over it.

    Args:
        name: of the dataset.
        count: how many; fewer where the split has fewer.
        num_steps: T of a net that takes samples without steps as sequences, the same at every step; None for one that
            takes them as they are.

    Returns:
        With `x` `[T, B, ...]` of sequences and with `num_steps`, else `[B, ...]`.
    """
    dataset = create("dataset", name)
    chosen = "test" if "test" in dataset.splits else "train"
    split = unaugmented(task_split(dataset, chosen))
    indices = spread(len(split), count)
    samples = [split[index] for index in indices]
    x = put_together(split, samples, dataset.is_sequence, indices=indices).x
    # As encoders read bytes; the net itself is given floats only.
    x = x.float() / 255 if x.dtype == torch.uint8 else x
    if num_steps is not None and not dataset.is_sequence:
        x = x.expand(num_steps, *x.shape)
    labels = [label for _, label in samples]
    are_classes = all(isinstance(label, int) for label in labels)
    return Samples(x, torch.tensor(labels) if are_classes else None, f"{len(samples)} {chosen} samples of {name}")
