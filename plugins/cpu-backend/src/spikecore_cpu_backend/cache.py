"""Compiled kernels, kept for the next process.

One file for each kernel, named by the hash of its source, the compiler with its version and flags, and the processor;
so another compiler or machine finds nothing rather than something wrong. A file ends with the hash of its own name and
bytes and is only ever put in place whole. What is damaged or foreign is compiled again; where the directory cannot be
used, the kernel lives in a private directory until the process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import hashlib
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path

from spikecore.errors import BackendError
from spikecore_cpu_backend.compiler import Compiler, CompilerStopped, compilers

MARK = b"spikecore kernel"


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/spikecore/cpu-backend`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~"), ".cache")
    return root / "spikecore" / "cpu-backend"


class KernelCache:
    """Loads kernels, compiling what is not there.

    Args:
        named: the compiler of what is missing; "": the first that works.
        folder: where files are kept.
        timeout_s: for one compilation.

    Raises:
        PluginUnavailable: there is no compiler.
    """

    def __init__(self, named: str, folder: Path, timeout_s: float) -> None:
        self.named, self.folder, self.timeout_s = named, folder.absolute(), timeout_s
        self.compiler = next(compilers(named))
        self._stopped: dict[str, str] = {}  # compiler → why it is not asked again

    def load(self, source: str) -> ctypes.CDLL:
        """The library of this source; where the compiler fails, from the next one that does not.

        Raises:
            BackendError: it cannot be compiled, stored anywhere or loaded.
        """
        try:
            return self._load(self.compiler, source)
        except BackendError as error:
            refused = [str(error)]
        for compiler in () if self.named else compilers():
            if compiler == self.compiler:
                continue
            try:
                found = self._load(compiler, source)
            except BackendError as error:
                refused.append(str(error))
                continue
            self.compiler = compiler
            return found
        raise BackendError("; ".join(refused))

    def _load(self, compiler: Compiler, source: str) -> ctypes.CDLL:
        text = f"{compiler.identity}\n{source}"
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.so"
        if self._is_whole(path):
            with contextlib.suppress(OSError):  # a file system without execution, or a file changed meanwhile
                return ctypes.CDLL(str(path))
        library = self._compiled(compiler, source)
        if _is_private(self.folder) and _store(path, library):
            with contextlib.suppress(OSError):
                return ctypes.CDLL(str(path))
        fallback = private_folder() / path.name
        if not _store(fallback, library):
            raise BackendError(f"no room for a compiled kernel: neither {self.folder} nor {fallback.parent} takes it")
        try:
            return ctypes.CDLL(str(fallback))
        except OSError as error:
            raise BackendError(f"a compiled kernel does not load: {error}") from None

    def _compiled(self, compiler: Compiler, source: str) -> bytes:
        """A compiler that hung once is not asked again: every neuron of a net would wait as long."""
        if compiler.path in self._stopped:
            raise BackendError(f"{self._stopped[compiler.path]}; it is not asked again in this process")
        try:
            return compiler.compile(source, self.timeout_s)
        except CompilerStopped as error:
            self._stopped[compiler.path] = str(error)
            raise

    def _is_whole(self, path: Path) -> bool:
        try:
            if not _is_private(self.folder) or not path.is_file():  # reading a pipe would never end
                return False
            content = path.read_bytes()
        except OSError:
            return False
        body, end = content[: -len(MARK) - 32], content[-len(MARK) - 32 :]
        return end == _end(path, body)


def _end(path: Path, body: bytes) -> bytes:
    return MARK + hashlib.sha256(path.stem.encode() + body).digest()


def _is_private(folder: Path) -> bool:
    """Made, or there, and no one else may write to it: a kernel is code that this process runs."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _store(path: Path, library: bytes) -> bool:
    """Put a file in place whole; False where that is impossible."""
    aside = None
    try:
        descriptor, aside = tempfile.mkstemp(prefix=f".{path.stem[:16]}-", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(library + _end(path, library))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError:
        if aside is not None:
            with contextlib.suppress(OSError):
                os.unlink(aside)
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
