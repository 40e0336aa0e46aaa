"""The bits of spikes that are known already, so that whoever multiplies or pools them need not pack them.

Two sources: a product packs its input, and neuron kernels write bits beside their floats. Bits belong to a tensor's
storage at one version. The table holds storages weakly: the entry of one that has died is never read, even where its
memory or its address is used again, because the weak reference keeps the address of the storage's own record taken.
Whatever writes to the tensor raises its version, and the bits are forgotten. Memory that others may write to, such as a
NumPy array's or that of other processes, has no bits. (Writing through `.data`, or to a neuron's output by NumPy, does
not show; torch's own autograd misses it as well. Backends compare a sample of the bits with the floats before they use
them.)

The bits of a product have one layout. Those of a neuron stand in the order of memory, whatever the layout is: they are
brought into the one that is asked for, once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spikecore.interfaces.products import SpikeBits
from spikecore.torch_internals import UnchangedTensor, WeakStorage, has_foreign_memory, number_writes, storage_key

Layout = tuple[int, ...]
"""`(C, number of values)`: positions with their channels side by side. `(N, C, H, W)`: planes."""
Arrange = Callable[[Layout], SpikeBits]


@dataclass(frozen=True)
class _Entry:
    storage: WeakStorage
    unchanged: UnchangedTensor
    is_own: bool
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


def note_bits(x: Tensor, bits: SpikeBits, is_own: bool = False) -> None:
    """Remember the bits of a tensor of zeros and ones as long as it lives unchanged.

    Not where other libraries or processes may write to its memory.

    Args:
        x: `[N, C, H, W]` or `[..., C]`.
        bits: its bits.
        is_own: its memory is the backend's, not torch's, and nobody else's.
    """
    layout = layout_of(x, bits.is_image)
    if layout is not None and (is_own or not has_foreign_memory(x)):
        _note(x, layout, bits, None, is_own)


def note_spikes(x: Tensor, arrange: Arrange) -> None:
    """Remember that x holds zeros and ones alone, and who gives their bits, as long as it lives unchanged.

    Args:
        x: dense in memory, in any order of axes; new, so that nobody has saved it or has another count of its writes.
        arrange: gives the bits in a layout that fills the same memory.
    """
    if not x.is_inference():
        number_writes(x)
    _note(x, None, None, arrange, is_own=True)


def _note(x: Tensor, layout: Layout | None, bits: SpikeBits | None, arrange: Arrange | None, is_own: bool) -> None:
    if x.is_inference():
        return
    for key, entry in list(_ENTRIES.items()):
        if not entry.storage.is_alive():
            _ENTRIES.pop(key, None)
    storage, unchanged = WeakStorage(x), UnchangedTensor(x)
    _ENTRIES[storage_key(x)] = _Entry(storage, unchanged, is_own, x.data_ptr(), x.numel(), layout, bits, arrange)


def bits_of(x: Tensor, is_image: bool) -> SpikeBits | None:
    """The bits of a tensor, read as an image `[N, C, H, W]` or as rows `[..., C]`, if they are known."""
    key = storage_key(x)
    entry = _ENTRIES.get(key)
    if entry is None or not entry.storage.is_alive() or x.is_inference():
        return None
    if not entry.unchanged.is_still(x) or entry.address != x.data_ptr():
        return None
    if not entry.is_own and has_foreign_memory(x):  # NumPy got it meanwhile
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
