"""Memory for large results, used again once nobody holds them.

A fresh page costs more than the arithmetic on it: the first touch of 64 MiB took 27 ms where a later one took 1.5 ms.
So regions that tensors have let go are kept, up to a limit, and handed out again. Those that nobody wanted for a second
are told to the kernel as free (MADV_FREE): it takes them back when memory is short and leaves them alone otherwise. (At
once would cost a flush of address translations on every call.)
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

HUGE_PAGE = 2 << 20
GRAIN = 64 << 10
SMALLEST = 128 << 10
"""Bytes from which on results come from here: where malloc begins to ask the system and to give back at once."""
IDLE_S = 1.0
MADV_FREE, MADV_HUGEPAGE = 8, 14


class Region:
    """A piece of address space; one that can hold huge pages is aligned for them and asks for them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.idle_since: float | None = None
        """Since when nobody uses it; None while used, and once the kernel knows."""
        is_huge = size >= HUGE_PAGE
        self._pages = mmap.mmap(-1, size + is_huge * HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        if is_huge:
            self.address = -(-self.address // HUGE_PAGE) * HUGE_PAGE
            self.advise(MADV_HUGEPAGE)

    def advise(self, advice: int) -> None:
        """A refusal changes nothing: it is advice."""
        _libc.madvise(self.address, self.size, advice)

    def close(self) -> None:
        """Give the memory back to the system."""
        self._pages.close()


class Recycler:
    """Hands out tensors and takes their memory back.

    Args:
        limit: bytes that may be kept without being in use.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._idle: deque[Region] = deque()  # appends and removals are atomic: leases end on any thread
        self._types: dict[int, Any] = {}
        self._sweeper = 0  # the process that has a timer running

    @property
    def idle_bytes(self) -> int:
        """Bytes kept and not in use."""
        return sum(region.size for region in self._snapshot())

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor with any content."""
        count = math.prod(shape)
        if count * dtype.itemsize < SMALLEST:
            return torch.empty(shape, dtype=dtype)
        grain = GRAIN if count * dtype.itemsize < HUGE_PAGE else HUGE_PAGE
        size = -(-count * dtype.itemsize // grain) * grain
        lease = self._type(size).from_address((region := self._region(size)).address)
        lease.region = region
        return torch.frombuffer(lease, dtype=dtype, count=count).resize_(shape)

    def free(self) -> None:
        """Give everything that is not in use back to the system."""
        while self._idle:
            self._close_oldest()

    def _snapshot(self) -> tuple[Region, ...]:
        while True:
            try:
                return tuple(self._idle)
            except RuntimeError:  # a lease ended meanwhile: on another thread, or as garbage collected just here
                continue

    def _region(self, size: int) -> Region:
        for region in reversed(self._snapshot()):
            if region.size == size:
                try:
                    self._idle.remove(region)
                except ValueError:  # another thread was faster
                    continue
                region.idle_since = None
                return region
        try:
            return Region(size)
        except OSError:
            self.free()
            return Region(size)

    def _type(self, size: int) -> Any:
        """A ctypes array whose end gives its region back; a tensor's storage holds it, and so do all views."""
        if size not in self._types:
            recycler, is_ending = self, sys.is_finalizing  # at the interpreter's end a module's names may be gone

            def __del__(self: Any) -> None:
                # At the end the region simply goes: there a timer would wait forever for its thread (Python 3.11).
                if not is_ending():
                    recycler._take_back(self.region)

            self._types[size] = type("Lease", (ctypes.c_char * size,), {"__del__": __del__})
        return self._types[size]

    def _take_back(self, region: Region) -> None:
        region.idle_since = time.monotonic()
        self._idle.append(region)
        while self._idle and self.idle_bytes > self.limit:
            self._close_oldest()
        if self._sweeper != os.getpid():  # a forked child has no timer
            self._sweeper = os.getpid()
            self._sweep_later()

    def _sweep_later(self) -> None:
        timer = threading.Timer(IDLE_S, self._sweep)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # no thread to be had, or the interpreter is ending
            self._sweeper = 0

    def _sweep(self) -> None:
        """Tell the kernel about regions that have been idle for a while; again later, if there are younger ones."""
        self._sweeper = 0
        before = time.monotonic() - IDLE_S
        is_waiting = False
        for region in self._snapshot():
            if region.idle_since is not None and region.idle_since <= before:
                self._release(region)
            is_waiting |= region.idle_since is not None
        if is_waiting and not self._sweeper:
            self._sweeper = os.getpid()
            self._sweep_later()

    def _release(self, region: Region) -> None:
        try:
            self._idle.remove(region)  # nobody may take it meanwhile
        except ValueError:
            return
        region.advise(MADV_FREE)
        region.idle_since = None
        self._idle.appendleft(region)

    def _close_oldest(self) -> None:
        try:
            self._idle.popleft().close()
        except IndexError:  # another thread was faster
            return


_libc = ctypes.CDLL(None)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
