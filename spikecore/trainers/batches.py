"""Samples put together for a step, as the split wants it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from spikecore.errors import ContractError
from spikecore.interfaces.dataset import Batch, Split, TargetKind


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
    split: Split,
    samples: Sequence[tuple[Tensor, int | Tensor]],
    is_sequence: bool,
    generator: torch.Generator | None = None,
) -> Batch:
    """As `assemble`, of samples that were read already."""
    collate = getattr(split, "collate", None)
    if collate is not None:
        batch: Batch = collate(samples, generator)
        return batch
    target = getattr(split, "target", None)
    return stack(samples, is_sequence, "class" if target is None else target.kind)


def stack(samples: Sequence[tuple[Tensor, int | Tensor]], is_sequence: bool, target: TargetKind) -> Batch:
    """Samples of one shape, and their labels as the target says: see the table in `interfaces.dataset`.

    Raises:
        ContractError: the labels are not of the target.
    """
    x = torch.stack([x for x, _ in samples])
    return Batch(x.transpose(0, 1) if is_sequence else x, stack_labels([label for _, label in samples], target))


def stack_labels(labels: Sequence[int | Tensor], target: TargetKind) -> Tensor | list[Tensor]:
    """The labels of a batch; for the `collate` of a split, too."""
    tensors = [label for label in labels if isinstance(label, Tensor)]
    if target == "class":
        if tensors:
            raise ContractError(
                "a label is a tensor, and classes are ints: build the task with spikecore.trainers.dataset_task or "
                "dataset_splits, whose splits know the dataset's target"
            )
        return torch.tensor(labels)
    if len(tensors) < len(labels):
        raise ContractError(f"the labels of the target {target!r} must be tensors; one is no tensor")
    if target == "items":
        return tensors
    return torch.stack(tensors, 1 if target == "sequence" else 0)


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
