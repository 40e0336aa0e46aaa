"""Signals that end a run: Ctrl-C, and SIGTERM, which batch systems send, in the same way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None]
TERMINATIONS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM raises `KeyboardInterrupt`, as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with handling(interrupt, signal.SIGTERM):
        yield


@contextmanager
def handling(handler: Handler, *numbers: signal.Signals) -> Iterator[None]:
    """Inside, these signals call `handler` in this process.

    Left alone are signals that are ignored (as under nohup), a SIGTERM for which somebody else has a handler, and all
    of them where this is not the main thread. SIGTERM ends forked children as ever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with ExitStack() as stack:
        for number in numbers:
            if _is_ours(number):
                before = signal.signal(number, _Owned(handler))
                stack.callback(signal.signal, number, before)
        yield


class _Owned:
    """A handler that a forked child inherits, and that does not keep a pool from ending its children."""

    def __init__(self, handler: Handler) -> None:
        self._handler, self._owner = handler, os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM and os.getpid() != self._owner:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._handler(number, frame)


def _is_ours(number: signal.Signals) -> bool:
    before = signal.getsignal(number)
    if number == signal.SIGTERM:
        return before == signal.SIG_DFL or isinstance(before, _Owned)
    return before is not None and before != signal.SIG_IGN  # None: not set from Python, so it could not be put back
