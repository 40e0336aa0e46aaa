"""Spikes kept as bits for the backward pass, wherever torch's autograd saves them.

    with packed_spikes():
        loss = criterion(net(x))
    loss.backward()

Inside the block every tensor of zeros and ones that autograd saves is kept as one bit per value, and turned back into
the same floats, in the same layout, when the backward pass asks for it. Whatever else is saved stays as it is.

A tensor that several operators save is packed once. The table of packed tensors holds storages weakly, at one version
and one layout: an entry of a storage that has died is never read, even where its memory is used again. It holds the
bits weakly too; the graph alone keeps them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from spikecore.backends.plain import is_plain
from spikecore.torch_internals import UnchangedTensor, WeakStorage, storage_key

MIN_VALUES = 1024
"""Smaller tensors are not looked at: a look costs more than the bits save."""
_SHIFTS = (0, 1, 2, 3, 4, 5, 6, 7)


class PackedSpikes:
    """The bits of a tensor of zeros and ones.

    Args:
        spikes: zeros and ones that fill their memory, in any order of axes; see `pack_spikes`.
    """

    def __init__(self, spikes: Tensor) -> None:
        self.dtype, self.shape = spikes.dtype, spikes.shape
        # Axes by falling stride: read in this order, the values are side by side in memory.
        strides: tuple[int, ...] = spikes.stride()
        self.order = sorted(range(spikes.dim()), key=lambda axis: (-strides[axis], axis))
        flat = spikes.permute(self.order).reshape(-1)
        rest = -flat.numel() % 8
        if rest:
            flat = torch.cat([flat, flat.new_zeros(rest)])
        columns = flat.to(torch.uint8).view(-1, 8)
        self.bits = columns[:, 0].clone()
        for shift in _SHIFTS[1:]:
            self.bits |= columns[:, shift] << shift

    def floats(self) -> Tensor:
        """The tensor again: values, dtype and strides."""
        shifts = torch.tensor(_SHIFTS, dtype=torch.uint8, device=self.bits.device)
        flat = ((self.bits.unsqueeze(1) >> shifts) & 1).view(-1)[: self.shape.numel()]
        ordered = flat.to(self.dtype).view([self.shape[axis] for axis in self.order])
        back = [self.order.index(axis) for axis in range(len(self.order))]
        return ordered.permute(back)


def are_spikes(x: Tensor) -> bool:
    """Is every value 0 or 1? NaN is neither."""
    return bool(((x == 0) | (x == 1)).all())


def pack_spikes(x: Tensor) -> PackedSpikes | None:
    """The bits of a tensor; None where it is no dense tensor of zeros and ones, or too small to be worth it."""
    if not _may_be_spikes(x):
        return None
    known = _known(x)
    if known is not None:
        return known
    if not are_spikes(x):
        return None
    packed = PackedSpikes(x.detach())
    _remember(x, packed)
    return packed


@contextmanager
def packed_spikes() -> Iterator[None]:
    """Keep spikes as bits where autograd saves them inside the block; see this module.

    The bits are those at the moment of saving: a later write to the tensor does not change them.
    """
    with saved_tensors_hooks(_pack, _unpack):
        yield


def _pack(x: Tensor) -> Tensor | PackedSpikes:
    return pack_spikes(x) or x


def _unpack(kept: Tensor | PackedSpikes) -> Tensor:
    return kept.floats() if isinstance(kept, PackedSpikes) else kept


def _may_be_spikes(x: Tensor) -> bool:
    if not x.is_floating_point() or x.numel() < MIN_VALUES or x.is_inference() or not is_plain((x,)):
        return False
    if x.is_leaf and x.requires_grad:
        return False  # a parameter lives on anyway
    return _fills_its_memory(x)


def _fills_its_memory(x: Tensor) -> bool:
    """Whether the values lie side by side in some order of the axes, none of them twice."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


Layout = tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]


@dataclass(frozen=True)
class _Entry:
    storage: WeakStorage
    unchanged: UnchangedTensor
    layout: Layout
    packed: weakref.ref[PackedSpikes]


_ENTRIES: dict[int, _Entry] = {}


def _layout(x: Tensor) -> Layout:
    return x.data_ptr(), tuple(x.shape), x.stride(), x.dtype


def _known(x: Tensor) -> PackedSpikes | None:
    entry = _ENTRIES.get(storage_key(x))
    if entry is None or not entry.storage.is_alive():
        return None
    return entry.packed() if entry.unchanged.is_still(x) and entry.layout == _layout(x) else None


def _remember(x: Tensor, packed: PackedSpikes) -> None:
    for key, entry in list(_ENTRIES.items()):
        if entry.packed() is None or not entry.storage.is_alive():
            _ENTRIES.pop(key, None)
    _ENTRIES[storage_key(x)] = _Entry(WeakStorage(x), UnchangedTensor(x), _layout(x), weakref.ref(packed))
