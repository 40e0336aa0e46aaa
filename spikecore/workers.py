"""Processes that help a run: they read samples, or are environments."""

from __future__ import annotations

import multiprocessing
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from spikecore.errors import RunError

__all__ = ["begin_worker", "starting_workers"]

ENDING = (signal.SIGINT, signal.SIGTERM)
NUM_PASSED = 2
"""The first asks a run to end at its next safe point, the second at once."""


def begin_worker(number: int = 0) -> None:
    """Leave it to the run when this process ends; a worker calls it first.

    A terminal, a batch system and a service manager send Ctrl-C and SIGTERM to every process of a run. The run ends at
    its next safe point, up to which it needs its workers, and then ends them itself. So Ctrl-C is ignored here, and so
    are the first two SIGTERM while the process that started this one lives.

    The process that starts such workers does so inside `starting_workers`, and ends one of them by `kill()`: a single
    `terminate()` passes. A DataLoader that is dropped in the middle sends one, so that its workers end with the
    sample that they are reading.

    Args:
        number: of the worker, as `DataLoader(..., worker_init_fn=begin_worker)` passes it; not used.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _Passing(os.getppid()))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


@contextmanager
def starting_workers() -> Iterator[None]:
    """Inside, processes are started that call `begin_worker`.

    Ctrl-C and SIGTERM wait until the block is left (but for what another thread of this process gets), and in the
    workers, which inherit that, until `begin_worker`: a worker that is starting, which takes seconds where it imports
    torch, is not killed. When this process ends, its daemonic children are killed; multiprocessing would send each one
    SIGTERM, and wait.

        with starting_workers():
            samples = iter(DataLoader(..., worker_init_fn=begin_worker))
    """
    global _killing_in
    if _killing_in != os.getpid():
        _killing_in = os.getpid()
        multiprocessing.util.Finalize(None, _kill_workers, exitpriority=10)
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    multiprocessing.resource_tracker.ensure_running()  # it lets both signals through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_killing_in: int | None = None
"""Whose workers are killed at its end: a forked child has this module as it is here, and children of its own."""


def _kill_workers() -> None:
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's raises an error for every reader that was killed
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


@contextmanager
def naming_dead_readers() -> Iterator[None]:
    """Inside, the error of a DataLoader whose worker was killed says so, and what to do.

    torch raises a RuntimeError wherever the process is at that moment, so the loader itself may not see it: a layer, a
    hook or a plugin may, and whoever names these may blame them for it.

    Raises:
        RunError: in its place.
    """
    try:
        yield
    except Exception as error:
        said = _said_of_reader(error)
        if said is None:
            raise
        raise RunError(
            f"a process that reads samples is gone: {said.strip().rstrip('.')}. Was it killed for want of "
            "memory? Use fewer of them, or let each keep fewer batches ready"
        ) from error


def _said_of_reader(error: BaseException | None) -> str | None:
    """What torch said of a worker that was killed, where that is what an error, or one behind it, comes from."""
    while error is not None:
        if isinstance(error, RuntimeError) and re.match(r"DataLoader worker \(pid", str(error)):
            return str(error)
        error = error.__cause__ or error.__context__
    return None


class _Passing:
    """A handler that lets some signals pass, and ends the process with the next, or when its parent is gone."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._left = NUM_PASSED

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self._left or os.getppid() != self._parent:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._left -= 1
