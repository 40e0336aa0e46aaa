"""Numbers that are measured once per machine: in memory, in files for later processes, or by measuring now."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import torch

from spikecore.files import read_file, write_file

LARGEST = 1 << 12
"""Bytes of a file at most."""


class Measured:
    """Shares, from 0 to 1, of classes of calls.

    Args:
        folder: where the files are; made if needed.
        name: of the share, in the files.
        identity: of processor, compiler, kernels and the way to measure, which the figures depend on.
    """

    def __init__(self, folder: Path, name: str, identity: str) -> None:
        self._folder, self._name, self._identity = folder, name, f"{identity}\n{torch.__version__}"
        self._known: dict[Hashable, float] = {}

    def of(self, kind: Hashable, measure: Callable[[], float]) -> float:
        """The share of a class of calls, whose `repr` tells it from all others; `measure` finds it."""
        if kind not in self._known:
            path = self._path(kind)
            known = self._read(path)
            if known is None:
                known = self._write(path, kind, measure())
            return self._known.setdefault(kind, known)  # of threads that measured at once, the first decides
        return self._known[kind]

    def _path(self, kind: Hashable) -> Path:
        name = hashlib.sha256(f"{self._identity}\n{kind!r}".encode()).hexdigest()[:32]
        return self._folder / f"{name}.json"

    def _read(self, path: Path) -> float | None:
        """What an earlier process measured; None where there is nothing that makes sense."""
        try:
            value = json.loads(read_file(path, LARGEST))[self._name]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if is_number and 0.0 <= value <= 1.0 else None

    def _write(self, path: Path, kind: Hashable, value: float) -> float:
        """Keep a share, unless another process was faster: what it found holds for all."""
        # Where the folder cannot be written, the figure lasts as long as the process.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({self._name: value, "of": repr(kind)}) + "\n"
            aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
            write_file(aside, text)
            try:
                os.link(aside, path)
            except OSError:  # it is there, or this folder has no links
                found = self._read(path)
                if found is not None:
                    value = found
                else:
                    write_file(path, text)
            finally:
                aside.unlink()
        return value


def best_times(calls: Sequence[Callable[[], object]], rounds: int, threads: int) -> list[float]:
    """Least seconds of each; they take turns, once more than `rounds` to warm up."""
    # On one thread its own CPU time, which does not depend on what else the machine does.
    clock = time.thread_time if threads == 1 else time.perf_counter
    best = [float("inf")] * len(calls)
    for number in range(rounds + 1):
        for index, call in enumerate(calls):
            start = clock()
            call()
            took = clock() - start
            if number:
                best[index] = min(best[index], took)
    return best
