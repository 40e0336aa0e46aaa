"""Measuring the net of a run that is there: on a split of its data, or in its environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikecore.errors import ConfigError, DatasetError
from spikecore.run.blame import naming_layers
from spikecore.run.build import Prepared, prepare
from spikecore.run.checkpoint import LAST
from spikecore.run.config import Resolved, resolve
from spikecore.run.log import finite
from spikecore.run.metrics import check_split, checked_metrics
from spikecore.run.origin import Origin
from spikecore.run.overrides import parse_override
from spikecore.run.restore import SavedRun
from spikecore.run.text import other_labels, samples_text
from spikecore.workers import naming_dead_readers

SPLITS = ("train", "val", "test")
CHANGEABLE_TABLES = ("backend", "dataset", "encoder")
CHANGEABLE_RUN_KEYS = ("device", "precision")
"""What an evaluation may change: where and how the same weights are computed, and how their samples are read."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Args:
        directory: the run.
        checkpoint: its name; `converted` for a converted net.
        split: `train`, `val` or `test`; `test` also stands for an environment.
        device: it ran on.
        changes: overrides of the run's configuration.
        other_samples: options among them that may change which samples the split holds; some may have been trained on.
        metrics: the numbers, each named after the split.
    """

    directory: str
    checkpoint: str
    split: str
    device: str
    changes: tuple[str, ...]
    other_samples: tuple[str, ...]
    metrics: dict[str, float]

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data; a number that is not finite is None."""
        metrics = {name: finite(value) for name, value in self.metrics.items()}
        lists = {"changes": list(self.changes), "other_samples": list(self.other_samples)}
        return {"schema": 1, **vars(self), **lists, "metrics": metrics}


def evaluate(
    directory: str | Path,
    checkpoint: str = LAST,
    *,
    split: str = "test",
    overrides: Sequence[str] = (),
    device: str | None = None,
    other_samples: bool = False,
) -> Evaluation:
    """Measure a run's saved weights; with `weights` of their own (`checkpoint(weights=...)`), those.

    Args:
        directory: the run directory, or one that `spike convert` wrote: its net is measured on the data of the run that
            it comes from.
        checkpoint: `last`, `best` or a name; a converted net has only the one.
        split: `test`, `val` or `train`, without augmentation.
        overrides: `table.key=value` of the backend, the dataset and the encoder, `run.device` and `run.precision`.
        device: to compute on, as `run.device`.
        other_samples: allow options of the dataset that may change which samples a split holds: the net may have been
            trained on some that are then in `test`.

    Raises:
        ConfigError: this is no run, a part of it is not installed, an override is not allowed, it may change which
            samples a split holds, the data are not those of the run, or there is no such split.
        CheckpointError: the checkpoint is missing, damaged, foreign or of another model.
        DatasetError: the run's data are not here, or damaged.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split {split}: must be one of {', '.join(SPLITS)}")
    changes = tuple(overrides)
    if device is not None:
        changes = (*changes, f"run.device={device}")
    _refuse_changes(changes)
    origin = Origin.of(Path(directory))
    saved = origin.saved
    resolved = saved.reopen_with((*origin.overrides, *changes))
    others = _other_samples(saved, resolved) if changes else ()
    if others and not other_samples:
        raise ConfigError(_samples_problem(others, split, resolved))
    prepared = _prepare(origin, resolved)
    is_resized = prepared.num_samples != saved.record.samples
    if is_resized or prepared.label_sums != saved.record.labels:
        if not other_samples:
            problem = _sizes_problem if is_resized else _labels_problem
            raise ConfigError(problem(directory, saved, prepared, split))
        others = others or ("dataset",)
    task, context = prepared.task, prepared.context
    if split not in task.splits and not (split == "test" and not task.splits):
        raise ConfigError(f"{directory}: {_no_split(split, prepared)}")
    prepared, name = origin.restore(prepared, checkpoint, _backend_in(changes))
    trainer = prepared.trainer
    with naming_dead_readers(), naming_layers(prepared.task.model):
        returned = trainer.evaluate(prepared.task, context, split)
    metrics = checked_metrics(trainer, "evaluate", returned)
    if prepared.task.splits:
        check_split(trainer, metrics, split)
    return Evaluation(str(directory), name, split, str(context.device), changes, others, metrics)


def _other_samples(saved: SavedRun, after: Resolved) -> tuple[str, ...]:
    """Options of the dataset that differ, and of which it does not promise that its splits hold the same samples."""
    if "dataset" not in after.names:
        return ()
    if saved.record.config["dataset"]["name"] != after.names["dataset"]:
        return ("dataset.name",)
    before = resolve(saved.source, saved.record.changes, only=["dataset"])
    old, new = before.options("dataset"), after.options("dataset")
    harmless = _same_samples(after)
    return tuple(f"dataset.{key}" for key in new if new[key] != old[key] and key not in harmless)


def _same_samples(resolved: Resolved) -> tuple[str, ...]:
    dataset = resolved.registry.load("dataset", resolved.names["dataset"])
    names: tuple[str, ...] = getattr(dataset.capabilities, "same_samples", ())
    return names


def _samples_problem(others: Sequence[str], split: str, resolved: Resolved) -> list[str]:
    harmless = ", ".join(f"dataset.{name}" for name in _same_samples(resolved)) or "none"
    return [
        f"--set {', '.join(others)}: may change which samples {split!r} holds, so that the net would be measured on "
        "samples that it was trained on",
        f"leave it out (options of this dataset that keep the samples of each split: {harmless}), or accept that with "
        "--other-samples (in Python: other_samples=True)",
    ]


def _sizes_problem(directory: str | Path, saved: SavedRun, prepared: Prepared, split: str) -> list[str]:
    return [
        f"{directory}: the run had {samples_text(saved.record.samples)}, and its dataset now gives "
        f"{samples_text(prepared.num_samples)}: {split!r} may hold samples that the net was trained on",
        "put the data back as they were, or accept that with --other-samples (in Python: other_samples=True)",
    ]


def _labels_problem(directory: str | Path, saved: SavedRun, prepared: Prepared, split: str) -> list[str]:
    splits = other_labels(saved.record.labels, prepared.label_sums)
    return [
        f"{directory}: the samples of {splits} have other labels than those of the run, or are in another order: "
        f"{split!r} may hold samples that the net was trained on",
        "put the data back as they were, or accept that with --other-samples (in Python: other_samples=True)",
    ]


def _prepare(origin: Origin, resolved: Resolved) -> Prepared:
    try:
        return prepare(resolved, loaded_bytes=origin.loaded_bytes)
    except (DatasetError, OSError) as error:
        if "dataset" not in resolved.names:
            raise
        raise DatasetError(
            f"{origin.directory}: the data of this run (dataset {resolved.names['dataset']!r}) cannot be read, and an "
            f"evaluation needs them: {error}\nThe net alone needs no data: spikecore.load({str(origin.directory)!r})"
        ) from error


def _backend_in(changes: Sequence[str]) -> str | None:
    names = [parse_override(text).get("backend", {}).get("name") for text in changes]
    return next((name for name in reversed(names) if name), None)


def _no_split(split: str, prepared: Prepared) -> str:
    """Why there is no such split to measure on, and what to do."""
    there = [name for name in SPLITS if name in prepared.task.splits]
    if there:
        return f"this run has no split {split!r} (its splits: {', '.join(there)})"
    if prepared.trainer.capabilities.task == "environment":
        where = "in its environment"
        why = "its trainer learns in an environment"
    else:
        where = "as its trainer does"
        why = "its trainer learns without a dataset"
    return (
        f"{why}, which has no splits, so there is no {split!r} to measure on: leave out --split (in Python: split) to "
        f"measure the net {where}"
    )


def _refuse_changes(changes: Sequence[str]) -> None:
    problems = []
    for text in changes:
        for table, options in parse_override(text).items():
            if table in CHANGEABLE_TABLES or (table == "run" and set(options) <= set(CHANGEABLE_RUN_KEYS)):
                continue
            problems.append(f"--set {text}: cannot change in an evaluation: it would be another net, or other samples")
    if problems:
        keys = [f"{table}.*" for table in CHANGEABLE_TABLES]
        keys += [f"run.{key}" for key in CHANGEABLE_RUN_KEYS]
        raise ConfigError([*problems, f"an evaluation may change {', '.join(keys)}"])
