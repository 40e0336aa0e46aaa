"""The bits of spikes that were packed once, so that the next reader of the same tensor need not pack it again.

    words    int32 [N, H, W, ceil(C / 32)] of an image, [N, ceil(C / 32)] of rows; channel c is bit c % 32 of word c // 32

Bits belong to a tensor's storage at one version and in one layout. The table holds storages weakly: the entry of one
that has died is never read, even where its memory or its address is used again, because the weak reference keeps the
address of the storage's own record taken. Whatever writes to the tensor raises its version, and the bits are forgotten.
(Writing through `.data` or another library's view of the memory does not; torch's own autograd misses it as well.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from spikecore.torch_internals import storage_key, version_of

Layout = tuple[int, ...]


@dataclass(frozen=True)
class SpikeBits:
    """Spikes as bits.

    Args:
        words: contiguous int32, one row of words for each position.
        channels: C.
        height, width: of an image; both 1 for rows.
        count: number of ones, where it is known.
    """

    words: Tensor
    channels: int
    height: int = 1
    width: int = 1
    count: int | None = None

    @property
    def num_images(self) -> int:
        """N: images, or rows."""
        return self.words.numel() // (self.height * self.width * self.num_words)

    @property
    def num_words(self) -> int:
        """Of one position."""
        return -(-self.channels // 32)

    def max_pool(self, kernel: tuple[int, int], stride: tuple[int, int]) -> SpikeBits:
        """Max pooling without padding: the OR of each window."""
        words = self.words.view(self.num_images, self.height, self.width, self.num_words)
        height = (self.height - kernel[0]) // stride[0] + 1
        width = (self.width - kernel[1]) // stride[1] + 1
        pooled: Tensor | None = None
        for row in range(kernel[0]):
            for column in range(kernel[1]):
                part = words[:, row : row + (height - 1) * stride[0] + 1 : stride[0]]
                part = part[:, :, column : column + (width - 1) * stride[1] + 1 : stride[1]]
                pooled = part.clone(memory_format=torch.contiguous_format) if pooled is None else pooled.bitwise_or_(part)
        assert pooled is not None
        return SpikeBits(pooled.view(-1), self.channels, height, width)


@dataclass(frozen=True)
class _Entry:
    storage: StorageWeakRef
    version: int
    address: int
    layout: Layout
    bits: SpikeBits


_ENTRIES: dict[int, _Entry] = {}


def layout_of(x: Tensor) -> Layout | None:
    """What tells in which order the values of x lie in memory: channels last or rows, or planes; None for other strides."""
    if x.dim() == 4:
        batch, channels, height, width = x.shape
        if x.is_contiguous(memory_format=torch.channels_last):
            return channels, x.numel()
        return (batch, channels, height, width) if x.is_contiguous() else None
    return (x.shape[-1], x.numel()) if x.dim() and x.is_contiguous() else None


def note_bits(x: Tensor, bits: SpikeBits) -> None:
    """Remember the bits of a tensor `[N, C, H, W]` or `[..., C]` of zeros and ones as long as it lives unchanged."""
    layout = layout_of(x)
    if layout is None or x.is_inference():
        return
    for key, entry in list(_ENTRIES.items()):
        if entry.storage.expired():
            _ENTRIES.pop(key, None)
    storage = StorageWeakRef(x.untyped_storage())
    _ENTRIES[storage_key(x)] = _Entry(storage, version_of(x), x.data_ptr(), layout, bits)


def bits_of(x: Tensor) -> SpikeBits | None:
    """The bits of a tensor, if they are known."""
    entry = _ENTRIES.get(storage_key(x))
    if entry is None or entry.storage.expired() or x.is_inference():
        return None
    is_same = entry.version == version_of(x) and entry.address == x.data_ptr() and entry.layout == layout_of(x)
    return entry.bits if is_same else None


def forget_bits() -> None:
    """Forget everything."""
    _ENTRIES.clear()
