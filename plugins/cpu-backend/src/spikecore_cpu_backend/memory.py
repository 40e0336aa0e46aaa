"""Memory for large results, used again once nobody holds them.

A fresh page costs more than the arithmetic on it: the first touch of 64 MiB took 27 ms where a later one took 1.5 ms.
So regions that tensors have let go are kept, up to a limit, and handed out again. They are told to the kernel as free
(MADV_FREE), which takes them back when memory is short and leaves them alone otherwise; on huge pages that costs next
to nothing. Without huge pages it would cost a fault for each page; there a look at the machine's free memory decides.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HUGE_PAGE = 2 << 20
SMALLEST = 1 << 20
"""Bytes from which on results come from here; below, malloc recycles by itself."""
MADV_FREE, MADV_HUGEPAGE = 8, 14


class Region:
    """A piece of address space, aligned for huge pages."""

    def __init__(self, size: int, is_huge: bool) -> None:
        self.size, self.is_huge = size, is_huge
        self._pages = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        self.address = -(-start // HUGE_PAGE) * HUGE_PAGE
        if is_huge:
            _madvise(self.address, size, MADV_HUGEPAGE)

    def close(self) -> None:
        """Give the memory back to the system."""
        self._pages.close()


class Recycler:
    """Hands out tensors and takes their memory back.

    Args:
        limit: bytes that may be kept without being in use.
        is_huge: regions ask for huge pages; by default where the system grants them.
    """

    def __init__(self, limit: int, is_huge: bool | None = None) -> None:
        self.limit = limit
        self.is_huge = _has_huge_pages() if is_huge is None else is_huge
        self._idle: deque[Region] = deque()  # appends and removals are atomic: leases end on any thread
        self._types: dict[int, Any] = {}

    @property
    def idle_bytes(self) -> int:
        """Bytes kept and not in use."""
        return sum(region.size for region in tuple(self._idle))

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor with any content."""
        count = math.prod(shape)
        if count * dtype.itemsize < SMALLEST:
            return torch.empty(shape, dtype=dtype)
        size = -(-count * dtype.itemsize // HUGE_PAGE) * HUGE_PAGE
        lease = self._type(size).from_address((region := self._region(size)).address)
        lease.region = region
        return torch.frombuffer(lease, dtype=dtype, count=count).resize_(shape)

    def free(self) -> None:
        """Give everything that is not in use back to the system."""
        while self._idle:
            self._close_oldest()

    def _region(self, size: int) -> Region:
        for region in reversed(tuple(self._idle)):
            if region.size == size:
                try:
                    self._idle.remove(region)
                except ValueError:  # another thread was faster
                    continue
                return region
        try:
            return Region(size, self.is_huge)
        except OSError:
            self.free()
            return Region(size, self.is_huge)

    def _type(self, size: int) -> Any:
        """A ctypes array whose end gives its region back; a tensor's storage holds it, and so do all views."""
        if size not in self._types:
            recycler = self

            def __del__(self: Any) -> None:
                recycler._take_back(self.region)

            self._types[size] = type("Lease", (ctypes.c_char * size,), {"__del__": __del__})
        return self._types[size]

    def _take_back(self, region: Region) -> None:
        if region.is_huge:
            _madvise(region.address, region.size, MADV_FREE)
        elif _is_short():
            region.close()
            return
        self._idle.append(region)
        while self._idle and self.idle_bytes > self.limit:
            self._close_oldest()

    def _close_oldest(self) -> None:
        try:
            self._idle.popleft().close()
        except IndexError:  # another thread was faster
            return


_libc = ctypes.CDLL(None)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _madvise(address: int, size: int, advice: int) -> None:
    _libc.madvise(address, size, advice)  # advice: a refusal changes nothing


def _has_huge_pages() -> bool:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return False
    return "[never]" not in text


def _is_short() -> bool:
    """Less than a tenth of the machine's memory is available."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total, available = (int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return False
    return available * 10 < total
