"""Tensors as the driver reads them: address, words between steps, lanes."""

from __future__ import annotations

import ctypes

from torch import Tensor

from spikecore.backends.kit import read_sequence, read_state

_ZERO = ctypes.c_double(0.0)
"""Zero in every dtype: what a gradient that does not arrive is read from.

No tensor, since one that is made under a transform or for another default device has no memory here.
"""
Words = tuple[int, int, int]
NOTHING: Words = (ctypes.addressof(_ZERO), 0, 0)


def sequence(x: Tensor | None, used: list[Tensor]) -> Words:
    """Of `[T, ...]`; `used` keeps copies alive. Without a tensor it is zero."""
    if x is None:
        return NOTHING
    tensor, step, lane = read_sequence(x)
    used.append(tensor)
    return tensor.data_ptr(), step, lane


def state(given: Tensor | None, used: list[Tensor]) -> Words:
    """The same for one step `[B, ...]`."""
    if given is None:
        return NOTHING
    tensor, step, lane = read_state(given)
    used.append(tensor)
    return tensor.data_ptr(), step, lane
