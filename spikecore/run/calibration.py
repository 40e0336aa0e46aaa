"""Inputs like those that a net was trained on, for a converter: of its run, of a dataset, or from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from spikecore.errors import ConfigError, SpikeError
from spikecore.files import refuse_special
from spikecore.interfaces.dataset import Batch, Split
from spikecore.interfaces.task import Task
from spikecore.registry import create
from spikecore.run.build import prepare
from spikecore.run.checkpoint import LAST
from spikecore.run.origin import Origin
from spikecore.run.sources import Source, spread
from spikecore.trainers.batches import assemble
from spikecore.trainers.splits import task_split


@dataclass(frozen=True)
class Calibration:
    """Inputs for a converter.

    Args:
        batches: makes a new iterator over them, each `[B, ...]` (`[T, B, ...]` for a net with state), on the CPU.
        source: where they come from, in words.
        dataset: its name, where one was named: there are samples of it to look at the new net with.
    """

    batches: Callable[[], Iterator[Tensor]]
    source: str
    dataset: str | None = None


def calibration_of(source: Source, data: str | None, count: int, batch_size: int) -> Calibration:
    """Inputs of the training split: of the run's own dataset, of a dataset by name, or from a file.

    A net that was converted from one without state takes the same input at every step: also that of a dataset or file
    without steps.

    Args:
        source: of the net.
        data: name of a dataset, or a safetensors or npy file of inputs `[N, ...]`, of sequences `[N, T, ...]`, finite
            floating-point numbers; None for the run's own, or for the dataset that a converted net was calibrated on.
        count: at most so many.
        batch_size: of each batch.

    Raises:
        ConfigError: there are no data for this source, or they cannot be read.
    """
    is_sequence = source.about["step_mode"] == "multi"
    if data is not None and data.endswith((".safetensors", ".npy")):
        values = _values_in(Path(data), is_sequence, source)[:count]
        said = f"{len(values)} inputs in {data}"
        batch_axis = 1 if is_sequence else 0
        values = values.movedim(0, batch_axis)  # a file has N first, also of sequences [N, T, ...]
        return Calibration(lambda: iter(torch.split(values, batch_size, batch_axis)), said)
    data = source.dataset if data is None else data
    if data is not None:
        return _from_dataset(data, count, batch_size, is_sequence, source)
    if source.directory is None or not source.has_run:
        raise ConfigError("--data is missing: name a dataset, or a .safetensors or .npy file of inputs [N, ...]")
    checkpoint = source.about.get("checkpoint", LAST)
    return _from_run(source.directory, checkpoint, count, batch_size, is_sequence)


def _values_in(path: Path, is_sequence: bool, source: Source) -> Tensor:
    """The inputs in a file, float32, `[N, ...]` or `[N, T, ...]`.

    Raises:
        ConfigError: it cannot be read, or holds what no net takes.
    """
    axes = "[N, T, ...]" if is_sequence else "[N, ...]"
    try:
        refuse_special(path, follows_link=True)
        if path.suffix == ".npy":
            # Mapped first: a file that claims more than it has is refused before memory is taken.
            mapped = np.lib.format.open_memmap(path, mode="r")
            tensors = {"": torch.from_numpy(np.array(mapped))}
        else:
            tensors = load_file(path)
    except Exception as error:  # numpy's parser of headers raises what Python's raises
        raise ConfigError(f"--data {path}: cannot be read: {type(error).__name__}: {error}") from error
    if len(tensors) != 1:
        raise ConfigError(f"--data {path}: expected one tensor of inputs {axes}, got {', '.join(tensors) or 'none'}")
    (values,) = tensors.values()
    if source.num_steps is not None and tuple(values.shape[1:]) == source.shape:
        values = values.unsqueeze(1).expand(-1, source.num_steps, *values.shape[1:])
    least_axes = 3 if is_sequence else 2
    if values.dim() < least_axes or not values.is_floating_point():
        raise ConfigError(
            f"--data {path}: expected inputs {axes} of floating-point numbers, as the net takes them, got "
            f"{tuple(values.shape)} of {values.dtype}"
        )
    if not bool(values.isfinite().all()):
        raise ConfigError(f"--data {path}: holds nan or infinities: calibration needs finite inputs")
    return values.float()  # NumPy's own default is float64


def _from_dataset(name: str, count: int, batch_size: int, is_sequence: bool, source: Source) -> Calibration:
    dataset = create("dataset", name)
    num_steps = None if dataset.is_sequence else source.num_steps
    if dataset.is_sequence != is_sequence and num_steps is None:
        wanted = "sequences [T, B, ...]" if is_sequence else "batches [B, ...]"
        own = "leave --data out for those of the run, encoded" if source.has_run else "give a file of such inputs"
        raise ConfigError(f"--data {name}: the net takes {wanted}, which this dataset does not give: {own}")
    split = task_split(dataset, "train")
    indices = spread(len(split), count)

    def batches() -> Iterator[Tensor]:
        for batch in _in_batches(split, indices, batch_size, dataset.is_sequence):
            # As encoders read bytes; the net itself is given floats only.
            x = batch.x.float() / 255 if batch.x.dtype == torch.uint8 else batch.x
            yield x if num_steps is None else x.expand(num_steps, *x.shape)

    return Calibration(batches, f"{len(indices)} training samples of {name}", name)


def _from_run(directory: Path, checkpoint: str, count: int, batch_size: int, is_sequence: bool) -> Calibration:
    try:
        task = task_of(directory, checkpoint)
        split = task.split("train")
    except (SpikeError, OSError) as error:
        raise ConfigError(f"{directory}: the data of this run cannot be read: {error}\n--data names others") from error
    indices = spread(len(split), count)

    def batches() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        for batch in _in_batches(split, indices, batch_size, task.is_sequence):
            with torch.no_grad():
                x = batch.x if task.is_sequence else task.sequence(batch.x, generator)
            # Of a net without state every step of a sequence is an input of its own.
            yield x if is_sequence else x.flatten(0, 1)

    return Calibration(batches, f"{len(indices)} training samples of {directory}")


def task_of(directory: Path, checkpoint: str) -> Task:
    """The task of a run, or of the run that a converted net comes from, its samples encoded as the net takes them.

    The encoder is as the checkpoint has it: one with weights of its own gives other inputs without.
    """
    origin = Origin.of(directory)
    resolved = origin.saved.reopen_with(origin.overrides)
    prepared = prepare(resolved, torch.device("cpu"), loaded_bytes=origin.loaded_bytes)
    return origin.restore(prepared, checkpoint)[0].task


def _in_batches(split: Split, indices: list[int], batch_size: int, is_sequence: bool) -> Iterator[Batch]:
    for start in range(0, len(indices), batch_size):
        yield assemble(split, indices[start : start + batch_size], is_sequence)
