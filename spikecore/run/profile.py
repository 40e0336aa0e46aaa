"""What the net of a configuration or of a run costs, on samples of its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from spikecore.analysis.operations import Operations, count_operations, time_layers
from spikecore.errors import ConfigError, SpikeError
from spikecore.registry import use
from spikecore.run.build import Prepared, prepare
from spikecore.run.checkpoint import LAST
from spikecore.run.config import Resolved, resolve, tables_of
from spikecore.run.kept_profile import Profile
from spikecore.run.origin import Origin
from spikecore.run.parts import Parts, rebuild_model
from spikecore.run.samples import Samples, from_split

UNTRAINED = "the seed's weights, untrained"


def profile(
    source: str | Path | None = None,
    *,
    checkpoint: str = LAST,
    split: str = "test",
    overrides: Sequence[str] = (),
    num_samples: int = 32,
    device: str = "cpu",
    num_calls: int = 5,
) -> Profile:
    """Count the operations of a net on its data, and time its layers.

    Args:
        source: a configuration, None for the default one; a run directory, or one that `spike convert` wrote.
        checkpoint: of a directory: `last`, `best` or a name.
        split: that the samples come from, without augmentation.
        overrides: `table.key=value`.
        num_samples: at most.
        device: to compute on, as `run.device`.
        num_calls: that the time of a layer is the median of; 0 for no times.

    Raises:
        ConfigError: the source cannot be used, there are no data, or there is no such split.
        CheckpointError: a checkpoint is missing, damaged or of another model.
        DatasetError: the data are not here, or damaged.
    """
    changes = [*overrides, f"run.device={device}"]
    prepared, resolved, weights = _from_directory(source, checkpoint, changes) or _from_config(source, changes)
    task = prepared.task
    if split not in task.splits:
        there = ", ".join(task.splits) or "none: it learns without a dataset"
        raise ConfigError(
            f"{source or 'the default configuration'}: there is no split {split!r} to take samples from (splits: "
            f"{there}); without data, call spikecore.analysis.count_operations(net, x)"
        )
    with use(resolved.registry), torch.no_grad():
        samples = from_split(task, num_samples, split, prepared.context.device)
        operations = count_operations(task.model, samples.x)
        if num_calls:
            operations = operations.with_times(time_layers(task.model, samples.x, num_calls))
        ann, note = _of_ann(resolved, prepared, samples)
    name = "default configuration" if source is None else str(source)
    return Profile(name, weights, samples.source, str(prepared.context.device), operations, ann, note)


def _from_directory(
    source: str | Path | None, checkpoint: str, changes: Sequence[str]
) -> tuple[Prepared, Resolved, str] | None:
    if source is None or not Path(source).is_dir():
        return None
    origin = Origin.of(Path(source))
    resolved = origin.saved.reopen_with((*origin.overrides, *changes))
    prepared, name = origin.restore(prepare(resolved, with_weights=False), checkpoint)
    return prepared, resolved, name


def _from_config(source: str | Path | None, changes: Sequence[str]) -> tuple[Prepared, Resolved, str]:
    resolved = resolve(source, changes)
    names = [f"{table}.weights = {weights!r}" for table, weights in resolved.weights.items()]
    return prepare(resolved), resolved, ", ".join(names) or UNTRAINED


def _of_ann(resolved: Resolved, prepared: Prepared, samples: Samples) -> tuple[Operations | None, str]:
    """The same model with `neuron = relu`, given the mean of the sequence as its one step."""
    if not prepared.nets:
        return None, "no artificial net beside it: the trainer made this net itself"
    tables = tables_of(resolved.to_toml())
    tables["neuron"] = {"name": "relu"}
    try:
        ordinary = resolve(tables)
        ordinary = replace(ordinary, registry=resolved.registry)
        net = rebuild_model(Parts(ordinary, prepared.context.device, with_weights=False), prepared.nets)
        ann = count_operations(net.eval(), samples.x.mean(0, keepdim=True))
    except (SpikeError, RuntimeError) as error:
        return None, f"no artificial net beside it: this model does not take neuron = relu ({error})"
    return ann, "ANN: the same model with neuron = relu, given the mean of the sequence as its one step (T = 1)"
