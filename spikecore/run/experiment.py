"""What `spike run` and Python call: start a run, resume one, evaluate, load."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from spikecore.run.build import Output, Prepared, prepare
from spikecore.run.checkpoint import LAST
from spikecore.run.config import Resolved, resolve, tables_of
from spikecore.run.context import Context
from spikecore.run.directory import new_directory
from spikecore.run.evaluation import Evaluation, evaluate
from spikecore.run.files import DirectoryLock
from spikecore.run.joining import joined
from spikecore.run.loading import load
from spikecore.run.processes import flatten
from spikecore.run.rebuilding import rebuild
from spikecore.run.restore import SavedRun
from spikecore.run.run import Result, Run
from spikecore.version import __version__

__all__ = ["Context", "Evaluation", "Output", "Prepared", "Result", "evaluate", "load", "prepare", "resume", "run"]


def run(
    config: Mapping[str, Any] | str | Path | Resolved | None = None,
    *,
    out: str | Path | None = None,
    output: Output | None = None,
    hooks: Sequence[object] = (),
) -> Result:
    """Train as `config` says and write a run directory; where `torchrun` has restarted failed processes, go on with the
    run that those began.

    Args:
        config: tables, a file, or None for the defaults.
        out: the run directory; None for a new one under `runs/`.
        output: clock and console; None for new ones.
        hooks: modules, or objects with methods marked by `spikecore.hookimpl`: called beside those of the plugins.

    Raises:
        StopRun: a hook ended the run.
        ConfigError: the configuration, or the directory, cannot be used.
        RunError: the disk refused; the message names the last good checkpoint.
    """
    output = output or Output()
    with joined(output.clock) as processes, ExitStack() as stack:
        if processes.num_restarts and (begun := processes.remembered_run()):
            return resume(begun, output=output, hooks=hooks)
        resolved = config if isinstance(config, Resolved) else processes.together(lambda: resolve(config))
        processes.require_same({"--out": str(out), **_facts(resolved)})
        prepared = processes.together(lambda: prepare(resolved, output=output, processes=processes))
        directory = processes.first(lambda: _lock(new_directory(out, resolved.tables["run"].name), stack))
        processes.remember_run(str(directory))
        with resolved.registry.hooks.with_listeners(hooks):
            return Run.begin(directory, resolved, prepared).carry_out()


def resume(
    directory: str | Path,
    *,
    checkpoint: str = LAST,
    overrides: Sequence[str] = (),
    output: Output | None = None,
    hooks: Sequence[object] = (),
) -> Result:
    """Resume a run from a checkpoint; on the CPU, results are bit-identical to those of an uninterrupted run.

    A run that died before its first checkpoint starts again from its seed. Lines of metrics and checkpoints that are
    newer than the one restored are dropped.

    Args:
        directory: the run directory.
        checkpoint: `last`, `best` or a name.
        overrides: `table.key=value`, of what may change in the middle of a run (see `config.refuse_changes`).
        output: clock and console; None for new ones.
        hooks: as of `run`.

    Raises:
        StopRun: a hook ended the run.
        ConfigError: the directory is in use or no run's, its configuration was edited, an override is not allowed.
        CheckpointError: the checkpoint is damaged, foreign or of another model; names the newest good one before it.
    """
    directory, output = Path(directory), output or Output()
    with joined(output.clock) as processes, ExitStack() as stack:
        # Before a lock is left in a directory that is no run's.
        for line in processes.first(lambda: rebuild(directory)):
            if processes.is_first:
                print(f"{directory}: {line}", file=sys.stderr)
        processes.first(lambda: _lock(directory, stack))
        saved = processes.together(lambda: SavedRun.open(directory))
        asked = {"--checkpoint": checkpoint, "--set": " ".join(overrides), "the run": saved.record.id}
        processes.require_same({**asked, **_versions()})
        if saved.is_done(checkpoint, overrides):
            if processes.is_first:
                print(f"{directory}: finished already, nothing is left to do", file=sys.stderr)
            return Result(dict(saved.record.metrics or {}), saved.record.timings_s, directory)
        processes.remember_run(str(directory))
        run = Run.reopen(saved, checkpoint, overrides, output, processes)
        with run.resolved.registry.hooks.with_listeners(hooks):
            return run.carry_out()


def _lock(directory: Path, stack: ExitStack) -> Path:
    """The directory, locked until the stack is unwound."""
    stack.enter_context(DirectoryLock(directory))
    return directory


def _facts(resolved: Resolved) -> dict[str, object]:
    """What all processes of a new run must have in common."""
    files = {f"--load {Path(file.path).name}": file.version for file in resolved.registry.files}
    return {**flatten(tables_of(resolved.to_toml())), **files, **_versions()}


def _versions() -> dict[str, object]:
    return {"spikecore's version": __version__, "torch's version": torch.__version__}
