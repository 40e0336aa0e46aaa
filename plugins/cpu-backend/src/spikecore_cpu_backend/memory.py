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
        self.idle_since = 0.0
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


class Idle:
    """Regions that nobody uses, by size: warm ones, and cold ones that the kernel knows of.

    Each step is one operation of a deque, which is atomic: leases end on any thread, and wherever garbage is collected.
    """

    def __init__(self) -> None:
        self._warm: dict[int, deque[Region]] = {}  # the oldest first
        self._cold: dict[int, deque[Region]] = {}

    @property
    def num_bytes(self) -> int:
        """Of all of them."""
        kept = (self._warm.copy(), self._cold.copy())
        return sum(size * len(regions) for by_size in kept for size, regions in by_size.items())

    def put(self, region: Region) -> None:
        """Nobody uses it any more."""
        region.idle_since = time.monotonic()
        warm = self._warm.get(region.size)
        if warm is None:
            warm = self._warm.setdefault(region.size, deque())
        warm.append(region)

    def take(self, size: int) -> Region | None:
        """The one used last, whose content may still be in the caches."""
        for kept in (self._warm, self._cold):
            try:
                return kept[size].pop()
            except LookupError:  # there is none
                continue
        return None

    def take_oldest(self) -> Region | None:
        """The one whose memory is missed least."""
        for kept in (self._cold.copy(), self._warm.copy()):
            for regions in sorted((by_size for by_size in kept.values() if by_size), key=_age):
                try:
                    return regions.popleft()
                except IndexError:  # another thread was faster
                    continue
        return None

    def cool(self, before: float) -> bool:
        """Tell the kernel about those that have been idle since then; are there younger ones?"""
        is_waiting = False
        for size, regions in self._warm.copy().items():
            while regions:
                try:
                    region = regions.popleft()  # nobody may take it meanwhile
                except IndexError:
                    break
                if region.idle_since > before:
                    regions.appendleft(region)
                    is_waiting = True
                    break
                region.advise(MADV_FREE)
                self._cold.setdefault(size, deque()).append(region)
        return is_waiting


def _age(regions: deque[Region]) -> float:
    try:
        return regions[0].idle_since
    except IndexError:
        return math.inf


class Recycler:
    """Hands out tensors and takes their memory back.

    Args:
        limit: bytes that may be kept without being in use.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._idle = Idle()
        self._sizes: dict[int, int] = {}  # of all regions, in use or not, by address
        self._num_bytes = 0  # of these
        self._types: dict[int, Any] = {}
        self._sweeper = 0  # the process that has a timer running

    @property
    def idle_bytes(self) -> int:
        """Bytes kept and not in use."""
        return self._idle.num_bytes

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor with any content."""
        count = math.prod(shape)
        num_bytes = count * dtype.itemsize
        if num_bytes < SMALLEST:
            return torch.empty(shape, dtype=dtype, device="cpu")
        grain = GRAIN if num_bytes < HUGE_PAGE else HUGE_PAGE
        size = -(-num_bytes // grain) * grain
        region = self._idle.take(size) or self._new_region(size)
        lease = (self._types.get(size) or self._new_type(size)).from_address(region.address)
        lease.region = region
        return torch.frombuffer(lease, dtype=dtype, count=count).resize_(shape)

    def owns(self, x: Tensor) -> bool:
        """Does the tensor lie in memory from here?"""
        return x.untyped_storage().data_ptr() in self._sizes

    def free(self) -> None:
        """Give everything that is not in use back to the system."""
        self._shrink_to(0)

    def _shrink_to(self, limit: int) -> None:
        while self._idle.num_bytes > limit:
            region = self._idle.take_oldest()
            if region is not None:
                self._sizes.pop(region.address)
                region.close()
                self._count()

    def _count(self) -> None:
        """Who counts last looks again: of two threads that count at once, the older sum may be stored last."""
        while self._num_bytes != (total := sum(tuple(self._sizes.values()))):
            self._num_bytes = total

    def _new_region(self, size: int) -> Region:
        try:
            region = Region(size)
        except OSError:
            self.free()
            region = Region(size)
        self._sizes[region.address] = size
        self._count()
        return region

    def _new_type(self, size: int) -> Any:
        """A ctypes array whose end gives its region back; a tensor's storage holds it, and so do all views."""
        recycler, is_ending = self, sys.is_finalizing  # at the interpreter's end a module's names may be gone

        def __del__(self: Any) -> None:
            # At the end the region simply goes: there a timer would wait forever for its thread (Python 3.11).
            if not is_ending():
                recycler._take_back(self.region)

        self._types[size] = type("Lease", (ctypes.c_char * size,), {"__del__": __del__})
        return self._types[size]

    def _take_back(self, region: Region) -> None:
        self._idle.put(region)
        if self._num_bytes > self.limit:
            self._shrink_to(self.limit)
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
        if self._idle.cool(time.monotonic() - IDLE_S) and not self._sweeper:
            self._sweeper = os.getpid()
            self._sweep_later()


_libc = ctypes.CDLL(None)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
