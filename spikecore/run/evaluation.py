"""Measuring the net of a run that is there: on a split of its data, or in its environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikecore.errors import ConfigError, DatasetError
from spikecore.run.build import Prepared, prepare
from spikecore.run.checkpoint import LAST
from spikecore.run.config import Resolved
from spikecore.run.log import finite
from spikecore.run.origin import Origin
from spikecore.run.overrides import parse_override

SPLITS = ("train", "val", "test")
CHANGEABLE_TABLES = ("backend", "dataset", "encoder")
CHANGEABLE_RUN_KEYS = ("device", "precision")
"""What an evaluation may change: where and how the same weights are computed, and on which data."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Args:
        directory: the run.
        checkpoint: its name; `converted` for a converted net.
        split: `train`, `val` or `test`; `test` also stands for an environment.
        device: it ran on.
        changes: overrides of the run's configuration.
        metrics: the numbers, each named after the split.
    """

    directory: str
    checkpoint: str
    split: str
    device: str
    changes: tuple[str, ...]
    metrics: dict[str, float]

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data; a number that is not finite is None."""
        metrics = {name: finite(value) for name, value in self.metrics.items()}
        return {**vars(self), "changes": list(self.changes), "metrics": metrics}


def evaluate(
    directory: str | Path,
    checkpoint: str = LAST,
    *,
    split: str = "test",
    overrides: Sequence[str] = (),
    device: str | None = None,
) -> Evaluation:
    """Measure a run's saved weights; with `weights` of their own (`checkpoint(weights=...)`), those.

    Args:
        directory: the run directory, or one that `spike convert` wrote: its net is measured on the data of the run that
            it comes from.
        checkpoint: `last`, `best` or a name; a converted net has only the one.
        split: `test`, `val` or `train`, without augmentation.
        overrides: `table.key=value` of the backend, the dataset and the encoder, `run.device` and `run.precision`.
        device: to compute on, as `run.device`.

    Raises:
        ConfigError: this is no run, a part of it is not installed, an override is not allowed, or there is no such
            split.
        CheckpointError: the checkpoint is missing, damaged, foreign or of another model.
        DatasetError: the run's data are not here, or damaged.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split {split}: must be one of {', '.join(SPLITS)}")
    changes = (*overrides, *([f"run.device={device}"] if device is not None else []))
    _refuse_changes(changes)
    origin = Origin.of(Path(directory))
    saved = origin.saved
    prepared = _prepared(Path(directory), saved.reopen_with((*origin.overrides, *changes)))
    task, context = prepared.task, prepared.context
    if split not in task.splits and not (split == "test" and not task.splits):
        there = ", ".join(name for name in SPLITS if name in task.splits) or "none: it learns without a dataset"
        raise ConfigError(f"{directory}: this run has no split {split!r} (its splits: {there})")
    prepared, name = origin.restore(prepared, checkpoint, _backend_in(changes))
    metrics = prepared.trainer.evaluate(prepared.task, context, split)
    return Evaluation(str(directory), name, split, str(context.device), changes, metrics)


def _prepared(directory: Path, resolved: Resolved) -> Prepared:
    try:
        return prepare(resolved, with_weights=False)
    except (DatasetError, OSError) as error:
        if "dataset" not in resolved.names:
            raise
        raise DatasetError(
            f"{directory}: the data of this run (dataset {resolved.names['dataset']!r}) cannot be read, and an "
            f"evaluation needs them: {error}\nThe net alone needs no data: spikecore.load({str(directory)!r})"
        ) from error


def _backend_in(changes: Sequence[str]) -> str | None:
    names = [parse_override(text).get("backend", {}).get("name") for text in changes]
    return next((name for name in reversed(names) if name), None)


def _refuse_changes(changes: Sequence[str]) -> None:
    problems = []
    for text in changes:
        for table, options in parse_override(text).items():
            if table in CHANGEABLE_TABLES or (table == "run" and set(options) <= set(CHANGEABLE_RUN_KEYS)):
                continue
            problems.append(f"--set {text}: cannot change in an evaluation: it would be another net, or other samples")
    if problems:
        keys = [*(f"{table}.*" for table in CHANGEABLE_TABLES), *(f"run.{key}" for key in CHANGEABLE_RUN_KEYS)]
        raise ConfigError([*problems, f"an evaluation may change {', '.join(keys)}"])
