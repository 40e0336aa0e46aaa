"""A run whose record, configuration or metrics are damaged, made whole again from what its checkpoints keep of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from spikecore.errors import CheckpointError, ConfigError
from spikecore.files import cure, read_file, write_file
from spikecore.run.checkpoint import FOLDER, CheckpointStore
from spikecore.run.directory import CONFIG
from spikecore.run.files import DirectoryLock
from spikecore.run.log import FILE as METRICS
from spikecore.run.log import MetricsLog
from spikecore.run.record import FILE as RECORD
from spikecore.run.record import MOST_BYTES, DamageError, Record, SchemaError

DAMAGED = ".damaged"
"""Ends the name under which a file stays that was put back."""


def rebuild(directory: Path) -> list[str]:
    """Put back what is damaged; returns a line for each file. What was there stays as `NAME.damaged`.

    Raises:
        ConfigError: there is no run here; or its record is damaged, and no checkpoint keeps it.
        SchemaError: its record is of another schema.
        OSError: the disk refused.
    """
    problem, run = None, ""
    try:
        run = Record.read(directory).id
    except SchemaError:
        raise  # nothing is damaged, and the copies in its checkpoints are of the same schema
    except ConfigError as error:
        problem = error
    if not os.path.isdir(directory / FOLDER):  # unlike pathlib's, also False where nothing may be read
        if problem is not None:
            raise problem
        return []
    with DirectoryLock(directory):
        return list(_rebuild_files(directory, CheckpointStore(directory, run), problem))


def _rebuild_files(directory: Path, store: CheckpointStore, problem: ConfigError | None) -> Iterator[str]:
    name, kept = _newest_kept(store)
    if problem is not None:
        if not kept:
            raise ConfigError(problem.plain if isinstance(problem, DamageError) else str(problem)) from None
        _put_back(directory, RECORD, kept)
        yield _line(RECORD, name)
    record = Record.read(directory)
    path = directory / CONFIG
    is_wrong = path.is_symlink() or (path.exists() and _sum(path) != record.config_sha256)
    if is_wrong and hashlib.sha256(kept.get(CONFIG, b"")).hexdigest() == record.config_sha256:
        _put_back(directory, CONFIG, kept)
        yield _line(CONFIG, name)
    if kept and not _has_lines(directory, store, name):
        _put_back(directory, METRICS, kept)
        yield _line(METRICS, name)


def _newest_kept(store: CheckpointStore) -> tuple[str, Mapping[str, bytes]]:
    """The newest checkpoint whose copies are whole, and these."""
    for name in reversed(store.names()):
        try:
            return name, store.kept(name)
        except CheckpointError:
            continue
    return "", {}


def _has_lines(directory: Path, store: CheckpointStore, name: str) -> bool:
    try:
        MetricsLog(directory).check(store.log_position(name))
    except CheckpointError:
        return False
    return True


def _sum(path: Path) -> str:
    try:
        return hashlib.sha256(read_file(path, MOST_BYTES)).hexdigest()
    except OSError:
        return ""


def _put_back(directory: Path, name: str, kept: Mapping[str, bytes]) -> None:
    path = directory / name
    try:
        if path.exists() or path.is_symlink():
            os.replace(path, directory / (name + DAMAGED))
        write_file(path, kept[name])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be rebuilt: {cure(error)}") from error


def _line(name: str, checkpoint: str) -> str:
    return (
        f"{name} was damaged or edited: rebuilt from {checkpoint}; what was there is {name}{DAMAGED}. "
        "To change options of a run, use --set"
    )
