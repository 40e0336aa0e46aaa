"""From a run directory back to the parts: what is there is verified before it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikecore.errors import CheckpointError, ConfigError
from spikecore.interfaces.trainer import Task
from spikecore.registry import registry
from spikecore.run import record as records
from spikecore.run.build import prepare
from spikecore.run.checkpoint import LAST, Checkpoint, CheckpointStore, refuse_other_model
from spikecore.run.config import Resolved, refuse_changes, resolve
from spikecore.run.context import Context, Keeping
from spikecore.run.log import MetricsLog

CONFIG = "config.toml"


def load(directory: str | Path, checkpoint: str = LAST) -> nn.Module:
    """The net of a run, in evaluation mode, on the CPU; every byte read is verified.

    Args:
        directory: the run directory.
        checkpoint: `last`, `best` or a name.

    Raises:
        ConfigError: this is no run, its configuration was edited, or a file that it was made with is not here.
        CheckpointError: the checkpoint is missing, damaged, foreign or of another model.
    """
    task, _, _ = _restored(directory, checkpoint, torch.device("cpu"))
    return task.model.eval()


def evaluate(directory: str | Path, checkpoint: str = LAST) -> dict[str, float]:
    """The metrics of a run's saved weights on its test split; arguments and errors are those of `load`."""
    task, trainer, context = _restored(directory, checkpoint, None)
    metrics: dict[str, float] = trainer.evaluate(task, context)
    return metrics


def _restored(directory: str | Path, checkpoint: str, device: torch.device | None) -> tuple[Task, Any, Context]:
    directory = Path(directory)
    record = records.read(directory)
    resolved = resolved_of(directory, record)
    task, trainer, context = prepare(resolved, device)
    found = find(keep(directory, record, resolved, task, trainer, context), checkpoint, task.model)
    assert found is not None
    context.restore(found)
    context.keeping = None  # from here on nothing is written
    return task, trainer, context


def resolved_of(directory: Path, record: Mapping[str, Any], overrides: Sequence[str] = ()) -> Resolved:
    """The configuration of a run that is there, with what was changed when it was resumed, and `overrides`."""
    records.check_files(record, registry())
    path = directory / CONFIG
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != record["config_sha256"]:
        raise ConfigError(
            f"{path}: was edited after the run began, so it no longer tells what was trained: put it back, or start "
            f"a new run with `spike run {path}`"
        )
    source = path if path.is_file() else record["config"]  # it is written just after the record
    resolved = resolve(source, record["changes"])
    if not overrides:
        return resolved
    changed = resolve(source, [*record["changes"], *overrides])
    refuse_changes(resolved, changed)
    return changed


def keep(
    directory: Path, record: Mapping[str, Any], resolved: Resolved, task: Task, trainer: Any, context: Context
) -> Keeping:
    """Give the context its directory."""
    options = resolved.tables["run"]
    store = CheckpointStore(directory, record["id"], options.keep_last, options.keep_best)
    context.keeping = Keeping(
        directory,
        store,
        MetricsLog(directory),
        trainer,
        task.encoder,
        options.checkpoint_every_steps,
        options.checkpoint_every_s,
    )
    return context.keeping


def find(keeping: Keeping, which: str, model: nn.Module, resuming: bool = False) -> Checkpoint | None:
    """The checkpoint asked for, verified against the net; None where a run has none yet and starts anew."""
    store = keeping.store
    names = store.names()
    if resuming and not keeping.trainer.capabilities.resumable:
        raise ConfigError(f"trainer {type(keeping.trainer).__name__} cannot be resumed: its capabilities say so")
    if resuming and not names and which == LAST:
        return None
    name = store.find(which)

    def verified(name: str) -> Checkpoint:
        found = store.read(name)
        refuse_other_model(store.path(name), model.state_dict(), found.model)
        if resuming:
            keeping.log.check(found.log)
        return found

    try:
        return verified(name)
    except CheckpointError as error:
        problem = error
    for other in reversed(names[: names.index(name)]):
        try:
            verified(other)
        except CheckpointError:
            continue
        raise CheckpointError(
            f"{problem}\nThe newest good one before it is {other}: "
            f"ask for it with --checkpoint {other} (in Python: checkpoint={other!r})"
        ) from problem
    raise CheckpointError(f"{problem}\nNo earlier checkpoint is good either") from problem
