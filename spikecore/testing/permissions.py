"""Permissions that bind root too: root may read and write everything, so tests of refused files would show nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

_VERSION_3 = 0x20080522
"""Of the kernel's interface: two words of 32 capabilities."""
_DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER = 1, 2, 3
_WORDS = ctypes.c_uint32 * 6
"""Effective, permitted and inheritable capabilities, then the same for those above 31."""


@contextlib.contextmanager
def heed_permissions() -> Iterator[None]:
    """Inside, in this thread, modes and owners of files bind root as they bind other users, for whom nothing changes.

    A program that is started inside has root's rights again; a forked process has not.

    Raises:
        NotImplementedError: this is root, and not Linux.
    """
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        raise NotImplementedError("only Linux takes single rights away from root: run the tests as another user")
    before = _capabilities()
    bound = _WORDS(*before)
    bound[0] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH | 1 << _FOWNER)
    _set_capabilities(bound)
    try:
        yield
    finally:
        _set_capabilities(before)


def _capabilities() -> ctypes.Array[ctypes.c_uint32]:
    words = _WORDS()
    _call("capget", words)
    return words


def _set_capabilities(words: ctypes.Array[ctypes.c_uint32]) -> None:
    _call("capset", words)


def _call(name: str, words: ctypes.Array[ctypes.c_uint32]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(_VERSION_3, 0)  # 0: this thread
    if getattr(libc, name)(head, words):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
