"""Files that are complete or absent, locks that are released when their holder dies, and cures for a failing disk.

Everything is written under a temporary name that ends in `.partial`, flushed and renamed, so a file under its own name
is complete. No function follows a symbolic link to the file that it writes or reads, because a directory from someone
else may contain links that lead out of it.

    write_file(directory / "run.json", text)
    write_with(directory / "events.npy", lambda aside: np.save(aside, events))
    with FileLock(directory / "run.lock"):
        ...

Functions raise `OSError`; `cure(error)` says what the user can do about it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

if sys.platform != "win32":
    import fcntl

__all__ = [
    "PARTIAL",
    "FileLock",
    "LockTaken",
    "clean",
    "cure",
    "discard",
    "is_full",
    "is_refused",
    "open_part",
    "open_to_append",
    "own_size",
    "read_file",
    "refuse_link",
    "remove_directory",
    "sync",
    "sync_tree",
    "write_directory",
    "write_file",
    "write_with",
]

PARTIAL = ".partial"
"""Ends the name of whatever is being written or removed; nothing reads such a name, and `clean` deletes it."""

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | getattr(os, "O_CLOEXEC", 0)
_MANY_FILES = 32
"""From this number on one flush of the whole system is faster than a flush of each file."""
_POLL_S = 0.05


def write_file(path: Path, data: bytes | str) -> None:
    """Replace a file by a new one; after a crash the old one or the new one is there, whole.

    Several processes and threads may write one file at the same time: the last one wins.

    Raises:
        OSError: the disk refused; the old file is untouched.
    """
    aside = _aside(path)
    try:
        _write_new(aside, data.encode() if isinstance(data, str) else data)
        os.replace(aside, path)
        sync(path.parent)
    except BaseException:
        discard(aside)
        raise


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file by one that `write` fills, for libraries that write to a path.

    Args:
        path: the file.
        write: is called with the name of an empty file beside `path`.

    Raises:
        OSError: the disk refused; the old file is untouched, as it is whenever `write` raises.
    """
    aside = _aside(path)
    try:
        _write_new(aside, b"")  # ours from now on: `write` cannot be led through a planted link
        write(aside)
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    finally:
        discard(aside)


def write_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Make a directory with these files; after a crash it is there with all of them, or not at all.

    Raises:
        OSError: the disk refused, or `path` exists.
    """
    aside = path.with_name(path.name + PARTIAL)
    discard(aside)
    try:
        aside.mkdir(parents=True)
        for name, data in files.items():
            _write_new(aside / name, data)
        sync(aside)
        os.rename(aside, path)
        sync(path.parent)
    except OSError:
        discard(aside)  # which also gives a full disk room for the caller's last words
        raise


def remove_directory(path: Path) -> None:
    """Delete a directory, or a file or link of that name; a crash on the way leaves no half of it under its name.

    Raises:
        OSError: it cannot be renamed or deleted.
    """
    aside = path.with_name(path.name + PARTIAL)
    discard(aside)
    os.rename(path, aside)
    sync(path.parent)
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink()


def clean(directory: Path) -> None:
    """Delete what a crash left half-written or half-removed in this directory."""
    for path in directory.glob(f"*{PARTIAL}"):
        discard(path)


def discard(path: Path) -> None:
    """Delete a file, a link or a directory that is no longer wanted, if it is there; failures do not matter."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):  # it lies under a name that nothing reads
        path.unlink(missing_ok=True)


def read_file(path: Path, limit: int, *, follows_link: bool = False) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Args:
        path: the file.
        limit: most bytes.
        follows_link: for a path that the user typed, which may be a link of theirs. A name in a directory that came
            from somebody else is never followed.

    Raises:
        OSError: it is a link, a pipe, a device or a directory (`ELOOP`, `EINVAL`, `EISDIR`), it is larger (`EFBIG`), or
            it cannot be read.
    """
    # A pipe that nobody writes to would block in `open` for ever without O_NONBLOCK.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags if follows_link else flags | _NO_FOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        there = os.fstat(descriptor)
        mode = there.st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        # `read` takes its memory first. A file of 0 bytes may be one of /proc, whose length is not known.
        data = file.read(min(limit, there.st_size or limit) + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than the {limit} bytes that are accepted", str(path))
    return data


def open_part(path: Path, start: int) -> IO[bytes]:
    """A file that is written bit by bit, such as a download, at `start`; 0 begins it anew.

    Raises:
        OSError: what should be continued is a link, no regular file, or has another name elsewhere (`ELOOP`, `EINVAL`).
    """
    if not start:
        discard(path)
        return os.fdopen(os.open(path, _CREATE, 0o644), "wb")
    file = os.fdopen(os.open(path, os.O_RDWR | _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0)), "r+b")
    there = os.fstat(file.fileno())
    if not stat.S_ISREG(there.st_mode) or there.st_nlink != 1:
        file.close()
        raise OSError(errno.EINVAL, "not a regular file of one name", str(path))
    file.seek(start)
    return file


def own_size(path: Path) -> int:
    """The size of a regular file; 0 for anything else, such as a link to one."""
    try:
        there = path.lstat()
    except OSError:
        return 0
    return there.st_size if stat.S_ISREG(there.st_mode) and there.st_nlink == 1 else 0


def refuse_link(path: Path) -> None:
    """Raises `OSError` (`ELOOP`) when the path is a link: what is written or deleted below it would be elsewhere."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def open_to_append(path: Path) -> int:
    """The descriptor of a regular file, made where it is missing, to write at its end.

    Raises:
        OSError: it is a link, a pipe or a device (`ELOOP`, `EINVAL`), or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def sync(path: Path) -> None:
    """Flush a file, or the list of names of a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Flush a directory and everything below it."""
    paths = list(directory.rglob("*"))
    if len(paths) > _MANY_FILES:
        os.sync()
        return
    for path in [*paths, directory]:
        if not path.is_symlink():
            sync(path)


def is_full(error: OSError) -> bool:
    """Whether the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_refused(error: OSError) -> bool:
    """Whether the user may not write there."""
    return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def cure(error: OSError) -> str:
    """What the system says, and what the user can do about it."""
    advice = "correct this, then try again"
    if error.errno == errno.EDQUOT:
        advice = "free some space within your quota"
    elif is_full(error):
        advice = "free some space"
    elif is_refused(error):
        advice = "make it writable, or copy it to where you may write"
    elif error.errno == errno.ELOOP:
        advice = "a symbolic link is not followed there: remove it"
    return f"{error.strerror or error}: {advice}"


class LockTaken(Exception):
    """Another process or thread holds the lock. `holder` is what it wrote about itself: `pid` and `host`."""

    def __init__(self, path: Path, holder: Mapping[str, object]) -> None:
        super().__init__(f"{path} is held by process {holder.get('pid', '(unknown)')}")
        self.path, self.holder = path, holder


class FileLock:
    """A lock between processes and threads, which the system frees when its holder dies.

    The file stays in place; it says which process holds the lock.

    Args:
        path: of the lock file, made where it is missing.
        timeout_s: how long to wait for another holder; None waits without end.
        on_wait: is called once, when the first try did not get the lock.

    Raises:
        LockTaken: on entry, the wait is over.
        OSError: on entry, the file cannot be written, is a symbolic link or no regular file, or the file system does
            not support locking.
    """

    def __init__(self, path: Path, timeout_s: float | None = None, on_wait: Callable[[], None] | None = None) -> None:
        self.path, self.timeout_s, self._on_wait = path, timeout_s, on_wait
        self._descriptor = -1

    def __enter__(self) -> FileLock:
        flags = os.O_RDWR | os.O_CREAT | _NO_FOLLOW | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
        self._descriptor = os.open(self.path, flags, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(self.path))
            self._acquire()
            os.ftruncate(self._descriptor, 0)
            about = {"pid": os.getpid(), "host": socket.gethostname()}
            os.write(self._descriptor, json.dumps(about).encode())
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def is_in_place(self) -> bool:
        """Whether the locked file still lies at `path`; not where somebody removed or replaced it meanwhile."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        own = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)

    @staticmethod
    def holder(path: Path) -> dict[str, object] | None:
        """Which process holds this lock: `pid` and `host`, empty if it has not written them yet; None if none does."""
        if sys.platform == "win32":
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | _NO_FOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return _about(os.pread(descriptor, 4096, 0))
        finally:
            os.close(descriptor)

    def _acquire(self) -> None:
        if sys.platform == "win32":
            return
        deadline = None if self.timeout_s is None else time.monotonic() + self.timeout_s
        has_waited = False
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
            if deadline is not None and time.monotonic() > deadline:
                raise LockTaken(self.path, _about(os.pread(self._descriptor, 4096, 0)))
            if not has_waited and self._on_wait is not None:
                self._on_wait()
            has_waited = True
            time.sleep(_POLL_S)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _aside(path: Path) -> Path:
    """Where a file is written before it is renamed: a name of its own for each thread of each process."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{PARTIAL}")


def _about(data: bytes) -> dict[str, object]:
    try:
        about = json.loads(data)
    except ValueError:  # the holder has not signed the file yet
        return {}
    return about if isinstance(about, dict) else {}


def _write_new(path: Path, data: bytes) -> None:
    """Write a file that does not exist yet. What an earlier crash, or somebody else, left there goes first."""
    try:
        descriptor = os.open(path, _CREATE, 0o644)
    except FileExistsError:
        discard(path)
        descriptor = os.open(path, _CREATE, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
