"""Where a net comes from that is to be converted: a run directory, a converted net, or a function in a Python file.

A source gives the net with its weights, inputs like those it was trained on, and what is needed to build it again
without its weights: that is copied into the directory of the converted net, below `source/`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from spikecore.errors import CheckpointError, ConfigError, ConversionError, SpikeError
from spikecore.files import refuse_special
from spikecore.interfaces.dataset import Batch, Split
from spikecore.interfaces.task import Task
from spikecore.nn import Dropout, Stateful, set_step_mode
from spikecore.nn.weights import read_tensors
from spikecore.registry import create
from spikecore.registry.files import file_source, run_file
from spikecore.run.build import prepare
from spikecore.run.restore import SavedRun
from spikecore.trainers.batches import assemble
from spikecore.trainers.splits import task_split

RUN, CONVERTED, FACTORY, FILE = "run", "converted", "factory", "file"
"""Kinds of sources."""


@dataclass(frozen=True)
class Source:
    """A net to convert.

    Args:
        net: in evaluation mode, with its weights. One without state takes batches `[B, ...]` (step mode `single`, where
            it has one), one with state sequences `[T, B, ...]`.
        about: what it is, for the manifest, and for `rebuild_source`.
        files: name below `source/` → content: what rebuilds it.
        shape: of one sample `[...]`; None where it is not known without data.
        directory: of the run; None for a function in a file.
    """

    net: nn.Module
    about: dict[str, Any]
    files: dict[str, bytes]
    shape: tuple[int, ...] | None
    directory: Path | None


def from_function(file: Path, function: str, weights: Path | None) -> Source:
    """The net that a function in a file makes; the file is run.

    Raises:
        PluginError: the file cannot be read, or fails.
        ConfigError: it has no such function, or the function gives no net.
        CheckpointError: the weights are not those of the net.
    """
    plugin = file_source(file, "SOURCE")
    module = find_module(plugin.version)
    if module is None:
        run_file(plugin, "SOURCE")
        module = find_module(plugin.version)
    net = call_factory(getattr(module, function, None), f"{file}:{function}")
    if weights is not None:
        tensors, _ = read_tensors(weights)
        try:
            net.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(f"--weights {weights}: are not those of {file}:{function}: {error}") from error
    about: dict[str, Any] = {
        "kind": FACTORY,
        "file": str(file),
        "sha256": plugin.version,
        "function": function,
        "weights": None if weights is None else str(weights),
        "step_mode": set_given_mode(net.eval()),
    }
    return Source(net, about, {}, None, None)


def from_file(file: Path, converter: Any) -> Source:
    """The net in a file of another program, which the converter reads.

    Raises:
        ConfigError: it refuses the file.
    """
    try:
        content: bytes = converter.content(file)
        net: nn.Module = converter.from_content(content).eval()
    except ConversionError as error:
        text = str(error) if str(file) in str(error) else f"{file}: {error}"
        raise ConfigError(f"SOURCE {text}") from error
    name = f"net{file.suffix}"
    about: dict[str, Any] = {"kind": FILE, "file": str(file), "stored": name, "step_mode": set_given_mode(net)}
    return Source(net, about, {name: content}, None, None)


def call_factory(function: Any, what: str) -> nn.Module:
    """The net that a function makes.

    Raises:
        ConfigError: it is no function, fails, or gives no net.
    """
    if not callable(function):
        raise ConfigError(f"SOURCE {what}: the file has no function of this name")
    try:
        net = function()
    except Exception as error:
        raise ConfigError(
            f"SOURCE {what}: calling it without arguments failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(net, nn.Module):
        raise ConfigError(f"SOURCE {what}: expected a torch.nn.Module, got {type(net).__name__}")
    return net


def find_module(digest: str) -> Any:
    """The module that was imported in this process from a file with this hash."""
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path and str(path).endswith(".py") and not str(path).startswith((sys.prefix, sys.base_prefix)):
            try:
                if hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest:
                    return module
            except OSError:
                continue
    return None


def set_given_mode(net: nn.Module) -> str:
    """Put a net into the step mode in which converters get it, and say which: `single` without state, else `multi`."""
    parts = [part for part in net.modules() if isinstance(part, Stateful) and not isinstance(part, Dropout)]
    mode = "multi" if any(part.state_names != () for part in parts) else "single"
    set_step_mode(net, mode)
    return mode


@dataclass(frozen=True)
class Calibration:
    """Inputs for a converter.

    Args:
        batches: makes a new iterator over them, each `[B, ...]` (`[T, B, ...]` for a net with state), on the CPU.
        source: where they come from, in words.
    """

    batches: Callable[[], Iterator[Tensor]]
    source: str


def calibration_of(source: Source, data: str | None, count: int, batch_size: int) -> Calibration:
    """Inputs of the training split: of the run's own dataset, of a dataset by name, or from a file.

    Args:
        source: of the net.
        data: name of a dataset, or a safetensors or npy file of inputs `[N, ...]`, of sequences `[N, T, ...]`, finite
            floating-point numbers; None for the run's own.
        count: at most so many.
        batch_size: of each batch.

    Raises:
        ConfigError: there are no data for this source, or they cannot be read.
    """
    is_sequence = source.about["step_mode"] == "multi"
    if data is not None and data.endswith((".safetensors", ".npy")):
        values = _values_in(Path(data), is_sequence)[:count]
        batch_axis = 1 if is_sequence else 0
        values = values.movedim(0, batch_axis)  # a file has N first, also of sequences [N, T, ...]
        return Calibration(lambda: iter(torch.split(values, batch_size, batch_axis)), f"{len(values)} inputs in {data}")
    if data is not None:
        return _from_dataset(data, count, batch_size, is_sequence)
    if source.directory is None or source.about["kind"] == CONVERTED:
        raise ConfigError("--data is missing: name a dataset, or a .safetensors or .npy file of inputs [N, ...]")
    checkpoint = source.about["checkpoint"]
    return _from_run(source.directory, checkpoint, count, batch_size, is_sequence)


def _values_in(path: Path, is_sequence: bool) -> Tensor:
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
    least_axes = 3 if is_sequence else 2
    if values.dim() < least_axes or not values.is_floating_point():
        raise ConfigError(
            f"--data {path}: expected inputs {axes} of floating-point numbers, as the net takes them, got "
            f"{tuple(values.shape)} of {values.dtype}"
        )
    if not bool(values.isfinite().all()):
        raise ConfigError(f"--data {path}: holds nan or infinities: calibration needs finite inputs")
    return values.float()  # NumPy's own default is float64


def _from_dataset(name: str, count: int, batch_size: int, is_sequence: bool) -> Calibration:
    dataset = create("dataset", name)
    if dataset.is_sequence != is_sequence:
        wanted = "sequences [T, B, ...]" if is_sequence else "batches [B, ...]"
        raise ConfigError(f"--data {name}: the net takes {wanted}, which this dataset does not give")
    split = task_split(dataset, "train")
    indices = spread(len(split), count)

    def batches() -> Iterator[Tensor]:
        for batch in _in_batches(split, indices, batch_size, is_sequence):
            # As encoders read bytes; the net itself is given floats only.
            yield batch.x.float() / 255 if batch.x.dtype == torch.uint8 else batch.x

    return Calibration(batches, f"{len(indices)} training samples of {name}")


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
    """A run's task, its encoder as the checkpoint has it: one with weights of its own gives other inputs without."""
    saved = SavedRun.open(directory)
    prepared = prepare(saved.resolve(), torch.device("cpu"), loaded_bytes=saved.weight_bytes or 0)
    restored = saved.checkpoint(checkpoint, prepared.task.model)
    prepared.context.restore(restored, prepared.trainer, prepared.task.encoder)
    return prepared.task


def _in_batches(split: Split, indices: list[int], batch_size: int, is_sequence: bool) -> Iterator[Batch]:
    for start in range(0, len(indices), batch_size):
        yield assemble(split, indices[start : start + batch_size], is_sequence)


def spread(size: int, count: int) -> list[int]:
    """`count` indices below `size` (all where there are fewer) at equal distances, the first among them."""
    count = min(size, count)
    return [index * size // count for index in range(count)]
