"""Samples put together for a step, as the split wants it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from spikecore.interfaces.dataset import Batch, Split


def assemble(split: Split, index: Iterable[Any], is_sequence: bool, generator: torch.Generator | None = None) -> Batch:
    """The samples of these indices: by the split's own `collate` where it has one, else stacked.

    Args:
        split: gives the samples.
        index: which ones.
        is_sequence: samples have a time axis, which then comes first.
        generator: for a `collate` that draws; None while evaluating.
    """
    wanted, at_once = [int(i) for i in index], getattr(split, "__getitems__", None)
    samples = at_once(wanted) if at_once is not None else [split[i] for i in wanted]
    return put_together(split, samples, is_sequence, generator)


def put_together(
    split: Split, samples: Sequence[tuple[Tensor, int]], is_sequence: bool, generator: torch.Generator | None = None
) -> Batch:
    """As `assemble`, of samples that were read already."""
    collate = getattr(split, "collate", None)
    if collate is not None:
        batch: Batch = collate(samples, generator)
        return batch
    x = torch.stack([x for x, _ in samples])
    return Batch(x.transpose(0, 1) if is_sequence else x, torch.tensor([label for _, label in samples]))


def in_batches(split: Split, batch_size: int, generator: torch.Generator) -> Sequence[Any]:
    """The indices of each batch of an epoch: as the split wants them where it has `batches`, else in random order."""
    own = getattr(split, "batches", None)
    if own is not None:
        chosen: Sequence[Any] = own(batch_size, generator)
        return chosen
    return torch.split(torch.randperm(len(split), generator=generator), batch_size)


def begin_epoch(split: Split, epoch: int) -> None:
    """Tell a split that augments its samples which epoch it is."""
    set_epoch = getattr(split, "set_epoch", None)
    if set_epoch is not None:
        set_epoch(epoch)
