"""Which compiler makes a kernel that the store does not have."""

from __future__ import annotations

import ctypes
from pathlib import Path

from spikecore.backends.kit import KernelStore, cache_folder, open_library
from spikecore.errors import BackendError
from spikecore_cpu_backend.compiler import Compiler, CompilerStopped, compilers


def default_folder() -> Path:
    """Where kernels are kept if the options name no directory."""
    return cache_folder("cpu-backend")


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
        self.named, self.timeout_s = named, timeout_s
        self.store = KernelStore(folder, open_library)
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
                library = self._load(compiler, source)
            except BackendError as error:
                refused.append(str(error))
                continue
            self.compiler = compiler
            return library
        raise BackendError("; ".join(refused))

    def _load(self, compiler: Compiler, source: str) -> ctypes.CDLL:
        return self.store.get(f"{compiler.identity}\n{source}", lambda: self._compile(compiler, source))

    def _compile(self, compiler: Compiler, source: str) -> bytes:
        """A compiler that hung once is not asked again: every neuron of a net would wait as long."""
        if compiler.path in self._stopped:
            raise BackendError(f"{self._stopped[compiler.path]}; it is not asked again in this process")
        try:
            return compiler.compile(source, self.timeout_s)
        except CompilerStopped as error:
            self._stopped[compiler.path] = str(error)
            raise
