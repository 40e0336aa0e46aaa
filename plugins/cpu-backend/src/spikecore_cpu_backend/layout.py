"""Tensors as the driver reads them: address, words between steps, lanes."""

from __future__ import annotations

import ctypes

from torch import Tensor

from spikecore.backends.kit import Lanes, read_sequence, read_state

_ZERO = ctypes.c_double(0.0)
"""Zero in every dtype: what a gradient that does not arrive is read from.

No tensor, since one that is made under a transform or for another default device has no memory here.
"""
Words = tuple[int, int, int]
NOTHING: Words = (ctypes.addressof(_ZERO), 0, 0)


def sequence(x: Tensor | None, used: list[Lanes]) -> Words:
    """Of `[T, ...]`; `used` keeps copies alive. Without a tensor it is zero."""
    return NOTHING if x is None else _words(read_sequence(x), used)


def state(tensor: Tensor | None, used: list[Lanes]) -> Words:
    """The same for one step `[B, ...]`."""
    return NOTHING if tensor is None else _words(read_state(tensor), used)


def _words(lanes: Lanes, used: list[Lanes]) -> Words:
    used.append(lanes)
    return lanes.tensor.data_ptr(), lanes.step, lanes.lane
