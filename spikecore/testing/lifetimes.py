"""Memory that is not released: what a component still holds of a call once its results are dropped."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import Parameter

NUM_CALLS = 4
"""Calls during which nothing may grow, after two that may fill caches."""


def assert_nothing_is_kept(call: Callable[[], Sequence[Tensor]], what: str) -> None:
    """The memory of all results is released with the last reference to them, and repeated calls hold no more tensors.

    Args:
        call: makes an input, runs the component and returns every tensor whose memory must come free: input, outputs,
            gradients.
        what: the component, for the message.
    """
    call()
    # Collecting garbage takes longer than all else here, so it is done only where something seems to be alive.
    storages = _storages(call())
    if not all(map(_is_released, storages)):
        gc.collect()
    for index, storage in enumerate(storages):
        assert _is_released(storage), (
            f"{what} keeps tensor {index} of a call (an input, an output or a gradient) alive after the call: "
            "memory grows with every call"
        )
    before = _live_bytes()
    for _ in range(NUM_CALLS):
        call()
    if _live_bytes() > before:
        gc.collect()
    grown = _live_bytes() - before
    assert grown <= 0, f"{what} holds {grown} bytes of tensors more after {NUM_CALLS} more calls: memory grows"


def _storages(tensors: Sequence[Tensor]) -> list[StorageWeakRef]:
    """Weak references to the memory of tensors. A reference to a tensor would not do: a detached copy shares memory."""
    return [StorageWeakRef(tensor.untyped_storage()) for tensor in tensors]  # type: ignore[no-untyped-call]


def _is_released(storage: StorageWeakRef) -> bool:
    return bool(storage.expired())  # type: ignore[no-untyped-call]


def _live_bytes() -> int:
    """The memory of all tensors that Python can reach, each storage counted once."""
    sizes = {}
    for thing in gc.get_objects():
        # Not `isinstance`: some objects import things to answer it.
        if type(thing) in (Tensor, Parameter) and thing.layout == torch.strided and thing.device.type != "meta":
            storage = thing.untyped_storage()
            try:
                place = storage.data_ptr()
            except RuntimeError:
                continue  # what a compiler has traced with: it has no memory
            sizes[place] = storage.nbytes()
    return sum(sizes.values())
