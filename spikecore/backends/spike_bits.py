"""The bits of spikes that are known already, so that whoever multiplies or pools them need not pack them.

Two sources: a product packs its input, and neuron kernels write bits beside their floats. Bits belong to a tensor's
storage at one version. The table holds storages weakly: the entry of one that has died is never read, even where its
memory or its address is used again, because the weak reference keeps the address of the storage's own record taken.
Whatever writes to the tensor raises its version, and the bits are forgotten. (Writing through `.data` or another
library's view of the memory does not; torch's own autograd misses it as well. Backends compare a sample of the bits
with the floats before they use them.)

The bits of a product have one layout. Those of a neuron stand in the order of memory, whatever the layout is: they are
brought into the one that is asked for, once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spikecore.interfaces.products import SpikeBits
from spikecore.torch_internals import WeakStorage, storage_key, version_of

Layout = tuple[int, ...]
"""`(C, number of values)`: positions with their channels side by side. `(N, C, H, W)`: planes."""
Arrange = Callable[[Layout], SpikeBits]


@dataclass(frozen=True)
class _Entry:
    storage: WeakStorage
    version: int
    address: int
    num_values: int
    layout: Layout | None
    bits: SpikeBits | None
    arrange: Arrange | None


_ENTRIES: dict[int, _Entry] = {}


def layout_of(x: Tensor, is_image: bool) -> Layout | None:
    """Tells in which order the values of x lie in memory, as an image `[N, C, H, W]` or as rows `[..., C]`.

    Positions with their channels side by side are one layout, be they rows or pixels in channels last; planes are
    another. None for other strides.
    """
    if not is_image:
        return (x.shape[-1], x.numel()) if x.dim() and x.is_contiguous() else None
    batch, channels, height, width = x.shape
    if x.is_contiguous(memory_format=torch.channels_last):
        return channels, x.numel()
    return (batch, channels, height, width) if x.is_contiguous() else None


def note_bits(x: Tensor, bits: SpikeBits) -> None:
    """Remember the bits of a tensor `[N, C, H, W]` or `[..., C]` of zeros and ones as long as it lives unchanged."""
    layout = layout_of(x, bits.is_image)
    if layout is not None:
        _note(x, layout, bits, None)


def note_spikes(x: Tensor, arrange: Arrange) -> None:
    """Remember that x holds zeros and ones alone, and who gives their bits, as long as it lives unchanged.

    Args:
        x: dense in memory, in any order of axes.
        arrange: gives the bits in a layout that fills the same memory.
    """
    _note(x, None, None, arrange)


def _note(x: Tensor, layout: Layout | None, bits: SpikeBits | None, arrange: Arrange | None) -> None:
    if x.is_inference():
        return
    for key, entry in list(_ENTRIES.items()):
        if not entry.storage.is_alive():
            _ENTRIES.pop(key, None)
    storage = WeakStorage(x)
    _ENTRIES[storage_key(x)] = _Entry(storage, version_of(x), x.data_ptr(), x.numel(), layout, bits, arrange)


def bits_of(x: Tensor, is_image: bool) -> SpikeBits | None:
    """The bits of a tensor, read as an image `[N, C, H, W]` or as rows `[..., C]`, if they are known."""
    key = storage_key(x)
    entry = _ENTRIES.get(key)
    if entry is None or not entry.storage.is_alive() or x.is_inference():
        return None
    if entry.version != version_of(x) or entry.address != x.data_ptr():
        return None
    layout = layout_of(x, is_image)
    bits = entry.bits
    if bits is None or entry.layout != layout:
        if layout is None or entry.arrange is None or entry.num_values != x.numel():
            return None
        bits = entry.arrange(layout)
        _ENTRIES[key] = replace(entry, layout=layout, bits=bits)
    height, width = (x.shape[2], x.shape[3]) if is_image else (1, 1)
    return replace(bits, height=height, width=width, is_image=is_image)


def forget_bits_of(x: Tensor) -> None:
    """Forget the bits of one tensor, whose memory may be written to behind torch's back."""
    _ENTRIES.pop(storage_key(x), None)


def forget_bits() -> None:
    """Forget everything."""
    _ENTRIES.clear()
