"""Files of a run: written aside, flushed to disk, renamed. What is half-written has a name that nothing reads."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from spikecore.errors import ConfigError

if sys.platform != "win32":
    import fcntl

PARTIAL = ".partial"
"""Ends the name of whatever is being written or removed; whoever opens a run directory next deletes it."""
LOCK = "run.lock"


def write_file(path: Path, data: bytes | str) -> None:
    """Replace a file by a new one; after a crash, one of the two is there, whole."""
    aside = path.with_name(path.name + PARTIAL)
    try:
        _write(aside, data.encode() if isinstance(data, str) else data)
        os.replace(aside, path)
        sync_directory(path.parent)
    except OSError:
        _discard(aside)
        raise


def write_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Make a directory with these files; after a crash it is there with all of them, or not at all."""
    aside = path.with_name(path.name + PARTIAL)
    _discard(aside)
    try:
        aside.mkdir(parents=True)
        for name, data in files.items():
            _write(aside / name, data)
        sync_directory(aside)
        os.rename(aside, path)
        sync_directory(path.parent)
    except OSError:
        _discard(aside)  # also gives a full disk some room for the record
        raise


def remove_directory(path: Path) -> None:
    """Delete a directory, or what stands in its place; a crash on the way leaves nothing that could be taken for it."""
    aside = path.with_name(path.name + PARTIAL)
    _discard(aside)
    os.rename(path, aside)
    sync_directory(path.parent)
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink()


def clean(directory: Path) -> None:
    """Delete what a crash left half-written or half-removed."""
    for path in directory.glob(f"*{PARTIAL}"):
        _discard(path)


def sync_directory(path: Path) -> None:
    """Flush a directory's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cause(error: OSError) -> str:
    """What the system says, and what to do about it."""
    advice = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some space within your quota",
        errno.EROFS: "make it writable, or copy the run to where you may write",
        errno.EACCES: "make it writable, or copy the run to where you may write",
    }
    return f"{error.strerror or error}: {advice.get(error.errno or 0, 'see to that')}"


class DirectoryLock:
    """Keeps other processes from writing into a run directory; the system drops it when the process dies.

    Raises:
        ConfigError: another process has it, or the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK
        self._descriptor = -1

    def __enter__(self) -> DirectoryLock:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._acquire()
            os.ftruncate(self._descriptor, 0)
            holder = {"pid": os.getpid(), "host": socket.gethostname()}
            os.pwrite(self._descriptor, json.dumps(holder).encode(), 0)
        except OSError as error:
            self._close()
            raise ConfigError(f"{self._path.parent}: cannot be written: {cause(error)}") from error
        except ConfigError:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def _acquire(self) -> None:
        if sys.platform == "win32":
            return
        for attempt in range(4):  # `holder` takes the lock too, for a moment
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.05 * attempt)
        who = holder(self._path.parent) or {}
        raise ConfigError(
            f"{self._path.parent}: in use by process {who.get('pid', '(unknown)')} on {who.get('host', 'this host')}, "
            "which trains this run: wait for it, or stop it with Ctrl-C"
        )

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def holder(directory: Path) -> dict[str, Any] | None:
    """Which process is training in this directory: `pid` and `host`; None when there is none."""
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        try:
            found: dict[str, Any] = json.loads(os.pread(descriptor, 4096, 0))
        except ValueError:  # it has the lock and has not signed it yet
            found = {}
        return found
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # it lies aside under a name that nothing reads
            path.unlink(missing_ok=True)
