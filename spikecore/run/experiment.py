"""A run: build the parts by name, train, and leave a directory that tells what was done.

config.toml      the resolved configuration
run.json         plugins, backend per layer, environment, seed, timings, exit status
metrics.jsonl    one line per epoch
checkpoints/     weights and everything else that is needed to go on
probe-*.safetensors, report.html    what the net did before and after training, and all of it as one page
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from spikecore.errors import ConfigError, RunError, SpikeError
from spikecore.interfaces.trainer import Task
from spikecore.registry import use
from spikecore.run import probe as probing
from spikecore.run import record as records
from spikecore.run.build import prepare
from spikecore.run.checkpoint import LAST, Checkpoint
from spikecore.run.config import Resolved, resolve
from spikecore.run.context import Context
from spikecore.run.files import LOCK, PARTIAL, DirectoryLock, cause, clean, write_file
from spikecore.run.idle import idle_options, unused_tables
from spikecore.run.log import EMPTY
from spikecore.run.restore import CONFIG, evaluate, find, keep, load, resolved_of

__all__ = ["Context", "Result", "evaluate", "load", "prepare", "resume", "run"]


@dataclass(frozen=True)
class Result:
    """What a run gives back: final metrics, seconds per part, and where its files are."""

    metrics: dict[str, float]
    timings: dict[str, float]
    directory: Path


def run(config: Mapping[str, Any] | str | Path | Resolved | None = None, *, out: str | Path | None = None) -> Result:
    """Train as `config` says and write a run directory.

    Raises:
        ConfigError: the configuration, or the directory, cannot be used.
        RunError: the disk refused; the message names the last good checkpoint.
    """
    resolved = config if isinstance(config, Resolved) else resolve(config)
    task, trainer, context = prepare(resolved)
    directory = _new_directory(out, resolved)
    with DirectoryLock(directory):
        hooks = resolved.registry.hooks
        record = records.new(resolved, context.device, hooks.report_header(str(context.device)), task.classes)
        _greet(record["header"], resolved)
        for line in idle_options(resolved, unused_tables(resolved, task)):
            record["notes"].append(line)
            print(f"warning: {line}", file=sys.stderr)
        try:
            clean(directory)
            records.write(directory, record)
            write_file(directory / CONFIG, resolved.to_toml())
        except OSError as error:
            raise RunError(f"{directory}: cannot be written: {cause(error)}") from error
        keep(directory, record, resolved, task, trainer, context)
        return _carry_out(directory, record, resolved, task, trainer, context, None)


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
    records.read(directory)  # before a lock is left in a directory that is no run's
    with DirectoryLock(directory):
        record = records.read(directory)
        resolved = resolved_of(directory, record, overrides)
        if record["status"] == "finished" and not overrides and checkpoint == LAST:
            print(f"{directory}: finished already, nothing is left to do", file=sys.stderr)
            return Result(record["metrics"], record["timings_s"], directory)
        task, trainer, context = prepare(resolved)
        keeping = keep(directory, record, resolved, task, trainer, context)
        found = find(keeping, checkpoint, task.model, resuming=True)
        if found is not None:
            context.restore(found)
        header = resolved.registry.hooks.report_header(str(context.device))
        _greet(header, resolved)
        try:
            _rewind(directory, record, resolved, context, found, overrides)
        except OSError as error:
            raise ConfigError(f"{directory}: cannot be written: {cause(error)}") from error
        return _carry_out(directory, record, resolved, task, trainer, context, found)


def _carry_out(
    directory: Path,
    record: dict[str, Any],
    resolved: Resolved,
    task: Task,
    trainer: Any,
    context: Context,
    found: Checkpoint | None,
) -> Result:
    hooks = context.hooks = resolved.registry.hooks
    metrics: dict[str, float] = {}
    try:
        hooks.run_start(directory, record, task.model)
        if found is None:
            _look(directory, record, task, context, "before")
        record["backends"] |= records.backends(task.model)
        _write(directory, record)
        if found is not None:
            context.restore_random(found)  # the last thing before training: what was built since may have drawn
        with use(resolved.registry), context.stoppable():
            metrics = trainer.fit(task, context)
        context.save()
        _look(directory, record, task, context, "after", getattr(trainer, "confusion", None))
        record |= {"status": "finished", "exit_status": 0, "metrics": metrics}
    except KeyboardInterrupt:
        record |= {"status": "interrupted", "exit_status": 130}
        raise
    except BaseException as error:
        record |= {"status": "failed", "exit_status": 1, "error": f"{type(error).__name__}: {error}"}
        raise
    finally:
        record |= {"ended": records.now(), "timings_s": context.times()}
        record["backends"] |= records.backends(task.model)
        try:
            hooks.run_end(directory, str(record["status"]), metrics)
        finally:
            _close(directory, record, resolved.tables["run"].report)
    return Result(metrics, record["timings_s"], directory)


def inspect_resume(
    directory: str | Path, checkpoint: str = LAST, overrides: Sequence[str] = ()
) -> tuple[Resolved, str]:
    """What `resume` would do: the configuration, and the checkpoint's name ("" for none); writes nothing."""
    directory = Path(directory)
    record = records.read(directory)
    resolved = resolved_of(directory, record, overrides)
    task, trainer, context = prepare(resolved)
    found = find(keep(directory, record, resolved, task, trainer, context), checkpoint, task.model, resuming=True)
    return resolved, found.name if found else ""


def _rewind(
    directory: Path,
    record: dict[str, Any],
    resolved: Resolved,
    context: Context,
    found: Checkpoint | None,
    overrides: Sequence[str],
) -> None:
    """Bring the directory back to the checkpoint, and note in the record that the run goes on."""
    assert context.keeping is not None
    clean(directory)
    checkpoints = context.keeping.store.keep_until(found.name if found else None)
    lines = context.keeping.log.restore(found.log if found else EMPTY)
    here = records.environment(context.device)
    last = record["resumes"][-1] if record["resumes"] else record
    changed = records.changed_environment(last, here, records.plugins(resolved))
    record["resumes"].append(
        {
            "at": records.now(),
            "after": records.status_of(directory, record) if record["status"] != records.RUNNING else records.DIED,
            "from": found.name if found else None,
            "dropped_lines": lines,
            "dropped_checkpoints": checkpoints,
            "changes": list(overrides),
            "environment": here,
            "plugins": records.plugins(resolved),
            "differs": changed,
        }
    )
    record |= {"status": records.RUNNING, "exit_status": None, "changes": [*record["changes"], *overrides]}
    for key in ("error", "metrics", "ended"):
        record.pop(key, None)
    records.write(directory, record)
    if not (directory / CONFIG).is_file():
        text = resolved.to_toml()
        if records.digest(text) == record["config_sha256"]:
            write_file(directory / CONFIG, text)
    where = f"going on from {found.name}" if found else "there is no checkpoint yet: starting again from the seed"
    dropped = f"; dropped {lines} newer lines of metrics and {len(checkpoints)} newer checkpoints"
    print(f"{directory}: {where}{dropped if lines or checkpoints else ''}", file=sys.stderr)
    for line in changed:
        print(f"warning: {line}: the rest of the run may differ in its last bits", file=sys.stderr)


def _look(
    directory: Path, record: dict[str, Any], task: Task, context: Context, moment: str, confusion: Any = None
) -> None:
    """Keep what the report shows of the net; a net or data that cannot be shown so is no reason to stop."""
    found: dict[str, Any] = {"layers": []}
    with context.timed("probe"):
        try:
            found = probing.probe(task, context)
        except Exception as error:
            record["notes"].append(f"spikes {moment} training cannot be shown: {type(error).__name__}: {error}")
        try:
            probing.save(probing.path_of(directory, moment), {**found, "confusion": confusion})
        except (OSError, SpikeError) as error:
            record["notes"].append(f"spikes {moment} training could not be kept: {error}")


def _report(directory: Path) -> None:
    from spikecore.run.report import write_report

    try:
        write_report(directory)
    except Exception as error:
        text = f"{type(error).__name__}: {error}; the run itself is complete: `spike report {directory}` tries again"
        print(f"warning: no report was written: {text}", file=sys.stderr)


def _write(directory: Path, record: Mapping[str, Any]) -> None:
    try:
        records.write(directory, record)
    except OSError as error:
        again = f"then `spike run --resume {directory}`; nothing that is in a checkpoint is lost"
        raise RunError(f"{directory}: the record cannot be written: {cause(error)}, {again}") from error


def _close(directory: Path, record: Mapping[str, Any], report: bool) -> None:
    """The last files of a run; when it fails, its own error is the one to be seen."""
    try:
        _write(directory, record)
    except RunError as error:
        if record["status"] == "finished":
            raise
        print(f"warning: {error}", file=sys.stderr)
    if report:
        _report(directory)


def _greet(header: Sequence[str], resolved: Resolved) -> None:
    failures = resolved.registry.hooks.failures.values()
    for line in (*header, *(f"warning: hooks are left out: {error}" for error in failures)):
        print(line, file=sys.stderr)


def _new_directory(out: str | Path | None, resolved: Resolved) -> Path:
    name = resolved.tables["run"].name
    for _ in range(10):  # a generated name that is taken (a clock may have moved back) is drawn again
        stamp = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        path = Path(out) if out is not None else Path("runs") / f"{name}-{stamp}"
        if path.exists() and not path.is_dir():
            raise ConfigError(f"--out {path}: must be a new or empty directory, and is a file; name another")
        try:
            path.mkdir(parents=True, exist_ok=True)
            # A run that died before its record was written leaves no more than this.
            others = [item for item in path.iterdir() if item.name != LOCK and item.suffix != PARTIAL]
            if not others:
                (path / PARTIAL).touch()
                (path / PARTIAL).unlink()
                return path
        except OSError as error:
            raise ConfigError(f"--out {path}: cannot be written: {error}") from error
        if out is not None:
            break
    raise ConfigError(f"--out {path}: the directory is not empty; name a new one, or go on with --resume {path}")
