"""Several threads at once, for components that promise to serve them.

First the threads take turns line by line, so that what one leaves on a shared object meets the next one for certain,
whatever the machine does; then they run freely, for the code between two lines of Python.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

NUM_CALLS, NUM_IN_TURNS = 25, 2
"""Calls of each thread that runs freely, and of each that takes turns."""
SWITCH_S = 1e-6
"""How often Python changes threads that run freely: far more often than usual, so that a race shows."""
PATIENCE_S = 0.05
"""A thread that does not come to its next line for so long waits for a lock; the others go on without it."""
FOREIGN = (os.path.dirname(torch.__file__), os.path.dirname(__file__), "<frozen")
STANDARD, INSTALLED = sysconfig.get_path("stdlib"), ("site-packages", "dist-packages")


def at_once(calls: Sequence[Callable[[], None]], num_calls: int = NUM_CALLS) -> None:
    """Run every call in a thread of its own, again and again, all of them starting together.

    Args:
        calls: each checks its own result, and raises if it is wrong.
        num_calls: how often each is called.

    Raises:
        AssertionError: a call raised in some thread; the message is that of the first one.
    """
    for call in calls:
        call()  # what is imported on first use is not part of the turns
    turns = Turns(len(calls))
    _run([_in_turns(turns, index, call) for index, call in enumerate(calls)])
    with _switching_often():
        _run([_repeated(call, num_calls) for call in calls])


class Turns:
    """Hands the turn round; see `at_once`."""

    def __init__(self, num_threads: int) -> None:
        self._changed = threading.Condition()
        self._working = set(range(num_threads))
        self._stuck: set[int] = set()
        self._turn = 0

    def next(self, own: int) -> None:
        """Give the turn to the next thread, and wait until it comes round to this one."""
        with self._changed:
            self._stuck.discard(own)
            if not self._hand_on(own):
                return
            if not self._changed.wait_for(lambda: self._turn == own, PATIENCE_S):
                self._stuck.add(self._turn)
                self._turn = own

    def leave(self, own: int) -> None:
        """This thread has done its work."""
        with self._changed:
            self._working.discard(own)
            self._hand_on(own)

    def _hand_on(self, own: int) -> bool:
        """Whether another thread has the turn now: the next one by number, then the first again."""
        waiting = sorted(self._working - self._stuck - {own})
        if waiting:
            self._turn = next((other for other in waiting if other > own), waiting[0])
            self._changed.notify_all()
        return bool(waiting)


def _is_foreign(file: str) -> bool:
    """Whether a file is torch's, the kit's or the standard library's: made for threads, and too long for turns."""
    is_standard = file.startswith(STANDARD) and not any(folder in file for folder in INSTALLED)
    return is_standard or file.startswith(FOREIGN)


def _in_turns(turns: Turns, own: int, call: Callable[[], None]) -> Callable[[], None]:
    """The call, with a change of threads before every line of Python outside of torch and the standard library."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if _is_foreign(frame.f_code.co_filename):
            return None
        if event == "line":
            turns.next(own)
        return trace

    def work() -> None:
        sys.settrace(trace)
        try:
            for _ in range(NUM_IN_TURNS):
                call()
        finally:
            sys.settrace(None)
            turns.leave(own)

    return work


def _repeated(call: Callable[[], None], num_calls: int) -> Callable[[], None]:
    def work() -> None:
        for _ in range(num_calls):
            call()

    return work


def _run(jobs: Sequence[Callable[[], None]]) -> None:
    """Every job in a thread of its own; raises what the first of them raised."""
    barrier = threading.Barrier(len(jobs))
    errors: list[BaseException] = []

    def work(job: Callable[[], None]) -> None:
        barrier.wait()
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        text = f"with {len(jobs)} threads at once: {type(errors[0]).__name__}: {errors[0]}"
        raise AssertionError(text) from errors[0]


@contextmanager
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
