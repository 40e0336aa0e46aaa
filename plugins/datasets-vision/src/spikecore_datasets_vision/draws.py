"""Random numbers of samples: the n-th number of a sample depends on (seed, epoch, index, stream) and on nothing else.

A whole batch is drawn at once, and a sample gets the same numbers in any batch, in any process, after any resume.

z ← key + (n + 1)·φ;  u = mix(z) / 2^64;  key = mix(mix(mix(mix(seed) + epoch) + index) + stream)

Source: mix and φ of Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators (OOPSLA 2014).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: np.ndarray) -> np.ndarray:
    """64 bits → 64 bits; one changed bit changes half of them."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _key(*parts: int | np.ndarray) -> np.ndarray:
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = _mix(key + np.asarray(part, np.uint64) + GOLDEN)
    return key


class Draws:
    """Numbers for B samples; each call goes on where the last one stopped.

    Args:
        seed: of the dataset.
        epoch: number of the epoch.
        index: of the samples, `[B]`.
        stream: keeps transforms apart.
    """

    def __init__(self, seed: int, epoch: int, index: np.ndarray, stream: int = 0) -> None:
        self._keys = _key(seed, epoch, index, stream)
        self._count = 0

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """`[B, *shape]`, float64, low ≤ value < high."""
        size = int(np.prod(shape, dtype=np.int64))
        numbers = np.arange(self._count + 1, self._count + size + 1, dtype=np.uint64)
        self._count += size
        bits = _mix(self._keys[:, None] + numbers * GOLDEN)
        unit = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return torch.from_numpy(low + (high - low) * unit).reshape(len(self._keys), *shape)

    def integers(self, below: int | Tensor, *shape: int) -> Tensor:
        """`[B, *shape]`, int64, 0 ≤ value < below; `below` is one number, or one for each of these."""
        drawn = (self.uniform(*shape) * below).long()
        return torch.minimum(drawn, torch.as_tensor(below) - 1)

    def chance(self, p: float, *shape: int) -> Tensor:
        """`[B, *shape]`, bool, True with probability p."""
        return self.uniform(*shape) < p

    def sign(self) -> Tensor:
        """`[B]`, 1 or -1."""
        return 1 - 2 * self.chance(0.5).double()
