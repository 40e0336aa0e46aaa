"""Datasets on disk: directories that are complete or absent, and errors that name the cure."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spikecore.errors import DatasetError
from spikecore.files import FileLock, LockTaken, cure, discard, is_full, is_refused, sync, sync_tree, write_with

VARIABLE = "SPIKECORE_DATA"
NUMPY_IS_FULL = re.compile(r"Not enough free space|requested and \d+ written")
"""numpy's messages about a full disk, which come without an errno."""


def data_dir() -> Path:
    """`$SPIKECORE_DATA`, else the platform's directory for caches."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "spikecore"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "spikecore"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spikecore"


@contextmanager
def lock(path: Path, timeout_s: float | None = None) -> Iterator[None]:
    """Hold `path` as a lock between processes and threads; the system frees it when the holder dies.

    Args:
        path: a file that is made, and left in place.
        timeout_s: how long to wait; None waits without end.

    Raises:
        DatasetError: the wait is over, or this system or file system does not support locking.
    """
    if sys.platform == "win32":
        raise DatasetError("datasets are kept apart by POSIX file locks, which this system does not have")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    file_lock = FileLock(path, timeout_s, on_wait=lambda: _say_waiting(path))
    with writing(path):
        try:
            file_lock.__enter__()
        except LockTaken:
            raise DatasetError(f"{path}: another process has held this lock for {timeout_s:g} s; wait for it") from None
        except OSError as error:
            if is_full(error) or is_refused(error):
                raise
            if error.errno in (errno.ELOOP, errno.EINVAL):
                raise DatasetError(f"{path}: cannot be used as a lock: {cure(error)}") from error
            raise DatasetError(f"{path}: this file system does not support locking: {error}") from error
    try:
        yield
    finally:
        file_lock.__exit__(None, None, None)


def _say_waiting(path: Path) -> None:
    if sys.stderr.isatty():
        print(f"waiting for another process: {path}", file=sys.stderr)


def make_directory(target: Path, make: Callable[[Path], None], *, resumable: bool = False) -> Path:
    """The directory `target`, filled by `make` unless it exists already.

    Args:
        target: is complete whenever it exists.
        make: fills the directory that it is given, on the same file system.
        resumable: pass `make` the directory that an interrupted call left. By default it starts from an empty
            directory, which is removed if it fails.

    Raises:
        DatasetError: it cannot be written.
    """
    if target.is_dir():
        return target
    with lock(target.with_name(f".{target.name}.lock")):
        if target.is_dir():  # made while we waited
            return target
        aside = target.with_name(f".{target.name}.partial")
        with writing(target):
            if not resumable or aside.is_symlink() or not aside.is_dir():
                discard(aside)  # a planted link to a directory would be filled, and then renamed
            aside.mkdir(parents=True, exist_ok=True)
            try:
                make(aside)
                sync_tree(aside)
            except BaseException:
                if not resumable:
                    shutil.rmtree(aside, ignore_errors=True)
                raise
            aside.rename(target)
            sync(target.parent)
    return target


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a file under a temporary name; rename it once it is complete and flushed.

    Raises:
        DatasetError: the disk is full or not writable; the message names the cure.
    """
    with writing(path):
        write_with(path, write)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusals to write under `path` into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if is_full(error) or (error.errno is None and NUMPY_IS_FULL.search(str(error))):
            cure = f"free some space, or set {VARIABLE} to a directory on a larger disk"
        elif is_refused(error):
            cure = f"set {VARIABLE} to a directory you may write to"
        else:
            raise
        raise DatasetError(f"{path}: cannot be written: {error}; {cure}") from error
