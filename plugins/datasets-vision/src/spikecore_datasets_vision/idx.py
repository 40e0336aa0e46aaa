"""idx, the format of MNIST: arrays of any rank.

0, 0, type, rank     a byte each; type 8: uint8, 9: int8, 11: int16, 12: int32, 13: float32, 14: float64
sizes                rank × uint32, big-endian
values               big-endian, the last axis fastest

Source: http://yann.lecun.com/exdb/mnist/, "The IDX file format".
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from spikecore.errors import DatasetError
from spikecore.files import refuse_special

TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: Path) -> np.ndarray:
    """The array, mapped into memory and not writable; no value is read yet.

    Raises:
        DatasetError: the file is missing, empty, no idx file, or shorter or longer than its header says.
    """
    try:
        refuse_special(path, follows_link=True)
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(4)
            rank = head[3] if len(head) == 4 else 0
            sizes = file.read(4 * rank)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    if size == 0:
        raise DatasetError(f"{path}: is empty; delete it, and get it again")
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES:
        raise DatasetError(f"{path}: is no idx file: it begins with {head.hex(' ')}, not 00 00, a type and a rank")
    if len(sizes) < 4 * rank:
        raise DatasetError(f"{path}: ends within its header of rank {rank}; delete it, and get it again")
    dtype = np.dtype(TYPES[head[2]])
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, 4 * rank, 4))
    start = 4 + 4 * rank
    wanted = start + math.prod(shape) * dtype.itemsize  # of Python's integers: nothing overflows
    if size != wanted:
        what = "is truncated" if size < wanted else "has bytes behind its end"
        raise DatasetError(f"{path}: {what}: {shape} of {dtype} make {wanted} bytes, and it has {size}")
    if math.prod(shape) == 0:
        try:
            return np.empty(shape, dtype)
        except ValueError as error:  # numpy also refuses an empty array whose other sizes overflow
            raise DatasetError(f"{path}: claims the impossible shape {shape}; delete it, and get it again") from error
    return np.memmap(path, dtype, "r", start, shape)


class IdxImages:
    """Images `[N, H, W]` of an idx file, as one channel.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._array = read_idx(path)
        if self._array.ndim != 3 or self._array.dtype != np.uint8:
            shape = tuple(self._array.shape)
            raise DatasetError(f"{path}: holds {shape} of {self._array.dtype}; images are [N, H, W] of uint8")

    @property
    def size(self) -> tuple[int, int]:
        """`(H, W)`."""
        height, width = self._array.shape[1:]
        return int(height), int(width)

    def __len__(self) -> int:
        return len(self._array)

    def take(self, index: np.ndarray) -> np.ndarray:
        """uint8 `[B, 1, H, W]`."""
        return np.asarray(self._array[index])[:, None]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]
