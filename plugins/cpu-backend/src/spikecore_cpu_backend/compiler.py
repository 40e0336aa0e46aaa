"""The system's C compiler: found, asked for its version, called with a time limit."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spikecore.errors import BackendError, PluginUnavailable
from spikecore.foreign import printable

CANDIDATES = ("cc", "gcc", "clang")
INSTALL = "install one: apt install gcc, dnf install gcc, pacman -S gcc or apk add gcc musl-dev"
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-pthread", "-fno-math-errno", "-fno-trapping-math")
EXACT = ("-ffp-contract=off",)
"""Contraction would round a * b + c once where torch rounds twice. Nothing of -ffast-math is ever given."""
TIMEOUT_S = 60.0


class CompilerStopped(BackendError):
    """The compiler took too long."""


@dataclass(frozen=True)
class Compiler:
    """A compiler that has answered.

    Args:
        path: the executable.
        version: the first line of `--version`.
        flags: for every call.
    """

    path: str
    version: str
    flags: tuple[str, ...]

    @property
    def identity(self) -> str:
        """What a compiled file depends on besides its source: compiler, flags, processor."""
        return "\n".join([self.path, self.version, *self.flags, processor()])

    def compile(self, source: str, timeout_s: float = TIMEOUT_S) -> bytes:
        """A shared library.

        Raises:
            BackendError: the compiler fails, or there is no room for its files.
            CompilerStopped: it takes too long.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="spikecore-") as folder:
                return self._compile_in(Path(folder), source, timeout_s)
        except OSError as error:
            raise BackendError(f"no temporary files for the compiler: {error}; set TMPDIR to a writable one") from None

    def _compile_in(self, folder: Path, source: str, timeout_s: float) -> bytes:
        text, library = folder / "kernel.c", folder / "kernel.so"
        text.write_text(source)
        code, output = _call([self.path, *self.flags, str(text), "-o", str(library), "-lm"], timeout_s)
        if code is None:
            raise CompilerStopped(f"{self.path} did not finish within {timeout_s:g} s and was stopped")
        if code or not library.is_file():
            raise BackendError(f"{self.path} failed with exit status {code}: {_tail(output)}")
        return library.read_bytes()


def compilers(named: str = "") -> Iterator[Compiler]:
    """The compiler that is named, or those of `cc`, `gcc`, `clang` that answer; at least one.

    Raises:
        PluginUnavailable: there is none, or this is not Linux.
    """
    if not sys.platform.startswith("linux"):
        raise PluginUnavailable(
            f"the cpu backend needs Linux, this is {platform.system() or sys.platform}", "the reference runs instead"
        )
    refused: list[str] = []
    is_none = True
    for name in (named,) if named else CANDIDATES:
        path = shutil.which(name)
        if path is None:
            refused.append(f"{name}: not found")
            continue
        code, output = _call([path, "--version"], 10.0)
        if code == 0 and output.strip():
            is_none = False
            yield Compiler(path, output.strip().splitlines()[0], _flags())
            continue
        refused.append(f"{name}: {'no answer' if code is None else f'exit status {code}'} to --version")
    if is_none:
        raise PluginUnavailable(f"no C compiler works here ({'; '.join(refused)})", INSTALL)


def _flags() -> tuple[str, ...]:
    machine = platform.machine()
    own: tuple[str, ...] = ("-mcpu=native",) if machine in ("aarch64", "arm64") else ("-march=native",)
    if " avx512f " in f" {_cpu_flags()} ":
        own = (*own, "-mprefer-vector-width=512")
    return (*FLAGS, *own, *EXACT)


@cache
def processor() -> str:
    """Model and features of this machine's processor, for which `-march=native` compiles."""
    return f"{platform.machine()}\n{_cpu_field('model name', 'CPU part')}\n{_cpu_flags()}"


def _cpu_flags() -> str:
    return _cpu_field("flags", "Features")


@cache
def _cpu_field(*names: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() in names), "")


def _call(command: list[str], timeout_s: float) -> tuple[int | None, str]:
    """Exit status (None: stopped for taking too long) and output; the compiler's own children end with it."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        return 127, str(error)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that left the group may hold the pipe open
            process.communicate(timeout=1.0)
        return None, ""
    return process.returncode, output


def _tail(output: str) -> str:
    lines = [line for line in output.strip().splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line] or lines
    text = "; ".join(errors[:3]) or "no message"
    return printable(text, 2000)
