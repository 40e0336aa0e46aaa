"""Several threads at once, for components that promise to serve them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

NUM_CALLS = 25
"""Calls of each thread."""
SWITCH_S = 1e-6
"""How often Python changes threads inside `at_once`: far more often than usual, so that a race shows."""


def at_once(calls: Sequence[Callable[[], None]], num_calls: int = NUM_CALLS) -> None:
    """Run every call in a thread of its own, again and again, all of them starting together.

    Args:
        calls: each checks its own result, and raises if it is wrong.
        num_calls: how often each is called.

    Raises:
        AssertionError: a call raised in some thread; the first one is told.
    """
    barrier = threading.Barrier(len(calls))
    errors: list[BaseException] = []

    def work(call: Callable[[], None]) -> None:
        barrier.wait()
        for _ in range(num_calls):
            if errors:
                return
            try:
                call()
            except BaseException as error:
                errors.append(error)
                return

    with _switching_often():
        threads = [threading.Thread(target=work, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise AssertionError(f"with {len(calls)} threads at once: {errors[0]}") from errors[0]


@contextmanager
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
