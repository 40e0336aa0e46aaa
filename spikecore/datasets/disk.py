"""The disk: what has a name is whole; locks that die with their holder; errors that say what to do."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spikecore.errors import DatasetError

VARIABLE = "SPIKECORE_DATA"
NUMPY_IS_FULL = re.compile(r"Not enough free space|requested and \d+ written")
"""What numpy says of a full disk, without the system's number for it."""
MANY = 32
"""Files that are flushed one by one."""


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
        timeout_s: how long to wait; None waits for ever.

    Raises:
        DatasetError: the wait is over, or there are no such locks here.
    """
    try:
        import fcntl
    except ImportError as error:
        raise DatasetError("datasets are kept apart by POSIX file locks, which this system lacks") from error
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise DatasetError(f"{path}: this file system gives no locks: {error}") from error
            if deadline is not None and time.monotonic() > deadline:
                raise DatasetError(f"{path}: another process has held this lock for {timeout_s:g} s; wait for it")
            if not told and sys.stderr.isatty():
                print(f"waiting for another process: {path}", file=sys.stderr)
                told = True
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def made(target: Path, make: Callable[[Path], None], *, resumable: bool = False) -> Path:
    """The directory `target`, filled by `make` unless it is there already.

    Args:
        target: is whole whenever it exists.
        make: fills the directory it is given, on the same file system.
        resumable: `make` is given back what an interrupted call left; else it starts from an empty directory, and
            what it made is taken away when it fails.

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
            if not resumable and aside.exists():
                shutil.rmtree(aside)
            aside.mkdir(parents=True, exist_ok=True)
            try:
                make(aside)
                _sync_tree(aside)
            except BaseException:
                if not resumable:
                    shutil.rmtree(aside, ignore_errors=True)
                raise
            aside.rename(target)
            sync(target.parent)
    return target


def write_aside(path: Path, write: Callable[[Path], None]) -> None:
    """`write` a file under another name; it gets its own once it is whole and on the disk."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        try:
            write(aside)
            sync(aside)
            aside.replace(path)
            sync(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def _sync_tree(directory: Path) -> None:
    paths = list(directory.rglob("*"))
    if len(paths) > MANY:
        os.sync()  # everything at once, where one by one would take minutes
        return
    for path in [*paths, directory]:
        sync(path)


def sync(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusals to write under `path` into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and NUMPY_IS_FULL.search(str(error))):
            cure = f"free some space, or set {VARIABLE} to a directory on a larger disk"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            cure = f"set {VARIABLE} to a directory you may write to"
        else:
            raise
        raise DatasetError(f"{path}: cannot be written: {error}; {cure}") from error
