"""What `spike run` and Python call: start a run, resume one, look before resuming, evaluate, load."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spikecore.run.build import Prepared, prepare
from spikecore.run.checkpoint import LAST
from spikecore.run.config import Resolved, resolve
from spikecore.run.context import Context
from spikecore.run.directory import new_directory
from spikecore.run.files import DirectoryLock
from spikecore.run.loading import load
from spikecore.run.record import FINISHED, Record
from spikecore.run.restore import SavedRun, evaluate
from spikecore.run.run import Result, Run

__all__ = ["Context", "Prepared", "Result", "evaluate", "inspect_resume", "load", "prepare", "resume", "run"]


def run(config: Mapping[str, Any] | str | Path | Resolved | None = None, *, out: str | Path | None = None) -> Result:
    """Train as `config` says and write a run directory.

    Raises:
        ConfigError: the configuration, or the directory, cannot be used.
        RunError: the disk refused; the message names the last good checkpoint.
    """
    resolved = config if isinstance(config, Resolved) else resolve(config)
    prepared = prepare(resolved)
    directory = new_directory(out, resolved.tables["run"].name)
    with DirectoryLock(directory):
        return Run.begin(directory, resolved, prepared).carry_out()


def resume(directory: str | Path, *, checkpoint: str = LAST, overrides: Sequence[str] = ()) -> Result:
    """Go on with a run where a checkpoint left it; on the CPU, to the same bits as if it had never stopped.

    A run that died before its first checkpoint starts again from its seed. Lines of metrics and checkpoints that are
    newer than the one restored are dropped.

    Args:
        directory: the run directory.
        checkpoint: `last`, `best` or a name.
        overrides: `table.key=value`, of what may change in the middle of a run (see `config.refuse_changes`).

    Raises:
        ConfigError: the directory is in use or no run's, its configuration was edited, an override is not allowed.
        CheckpointError: the checkpoint is damaged, foreign or of another model; names the newest good one before it.
    """
    directory = Path(directory)
    Record.read(directory)  # before a lock is left in a directory that is no run's
    with DirectoryLock(directory):
        saved = SavedRun.open(directory)
        if saved.record.status == FINISHED and not overrides and checkpoint == LAST:
            print(f"{directory}: finished already, nothing is left to do", file=sys.stderr)
            return Result(dict(saved.record.metrics or {}), saved.record.timings_s, directory)
        return Run.reopen(saved, checkpoint, overrides).carry_out()


def inspect_resume(
    directory: str | Path, checkpoint: str = LAST, overrides: Sequence[str] = ()
) -> tuple[Resolved, str]:
    """What `resume` would do: the configuration, and the checkpoint's name ("" for none); writes nothing."""
    saved = SavedRun.open(Path(directory))
    resolved = saved.resolve(overrides)
    since = saved.resumable(checkpoint, prepare(resolved))
    return resolved, since.name if since else ""
