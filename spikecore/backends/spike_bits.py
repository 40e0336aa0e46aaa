"""The bits of spikes that were packed once, so that the next reader of the same tensor need not pack it again.

Bits belong to a tensor's storage at one version and in one layout. The table holds storages weakly: the entry of one
that has died is never read, even where its memory or its address is used again, because the weak reference keeps the
address of the storage's own record taken. Whatever writes to the tensor raises its version, and the bits are forgotten.
(Writing through `.data` or another library's view of the memory does not; torch's own autograd misses it as well.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spikecore.interfaces.products import SpikeBits
from spikecore.torch_internals import WeakStorage, storage_key, version_of

Layout = tuple[int, ...]


@dataclass(frozen=True)
class _Entry:
    storage: WeakStorage
    version: int
    address: int
    layout: Layout
    bits: SpikeBits


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
    if layout is None or x.is_inference():
        return
    for key, entry in list(_ENTRIES.items()):
        if not entry.storage.is_alive():
            _ENTRIES.pop(key, None)
    storage = WeakStorage(x)
    _ENTRIES[storage_key(x)] = _Entry(storage, version_of(x), x.data_ptr(), layout, bits)


def bits_of(x: Tensor, is_image: bool) -> SpikeBits | None:
    """The bits of a tensor, read as an image `[N, C, H, W]` or as rows `[..., C]`, if they are known."""
    entry = _ENTRIES.get(storage_key(x))
    if entry is None or not entry.storage.is_alive() or x.is_inference():
        return None
    if entry.version != version_of(x) or entry.address != x.data_ptr() or entry.layout != layout_of(x, is_image):
        return None
    height, width = (x.shape[2], x.shape[3]) if is_image else (1, 1)
    return replace(entry.bits, height=height, width=width, is_image=is_image)


def forget_bits() -> None:
    """Forget everything."""
    _ENTRIES.clear()
