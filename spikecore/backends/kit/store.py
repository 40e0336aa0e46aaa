"""Compiled kernels, kept for the next process.

One file for each kernel, named by the hash of all that it depends on: source, compiler with version and flags,
processor. So another compiler or machine finds nothing rather than something wrong. A file ends with the hash of its
own name and bytes and is only ever put in place whole. What is damaged or foreign is compiled again; where the
directory cannot be used, kernels live in a private directory until the process ends. The files used longest ago go when
there are more than `MOST_FILES`, or more bytes than `MOST_BYTES`; in memory there are at most `MOST_LOADED` kernels.
"""

from __future__ import annotations

import _ctypes
import atexit
import contextlib
import ctypes
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

from spikecore.backends.kit.bounded import BoundedDict
from spikecore.errors import BackendError
from spikecore.files import read_file, write_with

Loaded = TypeVar("Loaded")
MARK = b"spikecore kernel"
LARGEST_FILE = 1 << 28
MOST_FILES, MOST_BYTES = 4096, 1 << 30
"""Of a folder of kernels; one is a few tens of kilobytes, and a sweep may compile hundreds."""
MOST_LOADED = 256
"""Kernels that a store holds in memory, about 24 KB for each; whoever calls one holds it too."""
END_BYTES = len(MARK) + hashlib.sha256().digest_size


def cache_folder(name: str) -> Path:
    """`$XDG_CACHE_HOME/spikecore/NAME`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~"), ".cache")
    return root / "spikecore" / name


class KernelStore(Generic[Loaded]):
    """Loads kernels; what is not there is compiled and kept.

    Args:
        folder: where the files are; made if needed.
        load: turns the path of a whole file into what is called. The file has `END_BYTES` bytes behind the kernel,
            which loaders of shared libraries ignore; `content` gives the bytes without them.
        suffix: of the files' names.
    """

    def __init__(self, folder: Path, load: Callable[[Path], Loaded], suffix: str = ".so") -> None:
        self.folder, self.suffix = folder.absolute(), suffix
        self._load = load
        self._loaded: BoundedDict[str, Loaded] = BoundedDict(MOST_LOADED)

    def get(self, identity: str, compile: Callable[[], bytes]) -> Loaded:
        """The kernel of this identity, from this process, from the folder, or compiled.

        The store may forget it: the caller holds it for as long as its code may run.

        Args:
            identity: text of all that the compiled bytes depend on.
            compile: makes them.

        Raises:
            BackendError: it cannot be stored anywhere, or does not load; and what `compile` raises.
        """
        name = hashlib.sha256(identity.encode()).hexdigest()
        loaded = self._loaded.get(name)
        if loaded is None:
            loaded = self._loaded[name] = self._get(self.folder / f"{name}{self.suffix}", compile)
        return loaded

    def _get(self, path: Path, compile: Callable[[], bytes]) -> Loaded:
        if self._is_whole(path):
            with contextlib.suppress(OSError):  # a file system without execution, or a file changed meanwhile
                loaded = self._load(path)
                with contextlib.suppress(OSError):  # a read-only folder keeps its order
                    os.utime(path)
                return loaded
        kernel = compile()
        if _is_private(self.folder) and _store(path, kernel):
            _evict(self.folder, self.suffix)
            with contextlib.suppress(OSError):
                return self._load(path)
        fallback = private_folder() / path.name
        if not _store(fallback, kernel):
            raise BackendError(f"no room for a compiled kernel: neither {self.folder} nor {fallback.parent} takes it")
        try:
            return self._load(fallback)
        except OSError as error:
            raise BackendError(f"a compiled kernel does not load: {error}") from None

    def _is_whole(self, path: Path) -> bool:
        try:
            if not _is_private(self.folder):
                return False
            content = read_file(path, LARGEST_FILE)
        except OSError:
            return False
        kernel, end = content[:-END_BYTES], content[-END_BYTES:]
        return end == _end(path, kernel)


def open_library(path: Path) -> ctypes.CDLL:
    """A shared library that is unloaded when nothing refers to it any more; ctypes alone never unloads one.

    A function of the library refers to it. An address does not: whoever keeps one also keeps the library.

    Raises:
        OSError: it does not load.
    """
    library = ctypes.CDLL(str(path))
    if sys.platform != "win32":
        unload = weakref.finalize(library, _ctypes.dlclose, library._handle)
        unload.atexit = False  # daemon threads may still be in it when the process ends
    return library


def content(path: Path) -> bytes:
    """The kernel in a file of the store."""
    return read_file(path, LARGEST_FILE)[:-END_BYTES]


def _end(path: Path, kernel: bytes) -> bytes:
    return MARK + hashlib.sha256(path.stem.encode() + kernel).digest()


def _evict(folder: Path, suffix: str) -> None:
    """Delete the kernels used longest ago until the rest is within the limits; one that is loaded stays in memory."""
    kernels = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(suffix) and entry.is_file(follow_symlinks=False):
                about = entry.stat(follow_symlinks=False)
                kernels.append((about.st_mtime_ns, about.st_size, entry.path))
    kernels.sort(reverse=True)
    num_bytes = 0
    for rank, (_, size, path) in enumerate(kernels):
        num_bytes += size
        if rank and (rank >= MOST_FILES or num_bytes > MOST_BYTES):  # the newest was asked for just now
            with contextlib.suppress(OSError):  # another process was faster
                os.unlink(path)


def _is_safe_parent(folder: Path) -> bool:
    """Nobody but its owner, who is this user or root, may replace what lies in it (as in /tmp, by the sticky bit)."""
    status = folder.stat()
    is_open = bool(status.st_mode & stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    return status.st_uid in (os.getuid(), 0) and not is_open


def _is_private(folder: Path) -> bool:
    """Made, or there, and no one else may write to it or move it: a kernel is code that this process runs."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if not all(map(_is_safe_parent, folder.resolve().parents)):
            return False
    except OSError:
        return False
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _store(path: Path, kernel: bytes) -> bool:
    """Put a file in place whole; False where that is impossible."""
    try:
        write_with(path, lambda aside: aside.write_bytes(kernel + _end(path, kernel)))
    except OSError:
        return False
    return True


@cache
def private_folder() -> Path:
    """A directory of this process alone, removed when it ends.

    Raises:
        BackendError: there is no room for one.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="spikecore-kernels-"))
    except OSError as error:
        raise BackendError(f"no temporary directory for compiled kernels: {error}") from None
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not in a forked child, which still may need it
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
