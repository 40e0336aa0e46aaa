"""Samples put together for a step, as the split wants it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from spikecore.errors import ContractError, DatasetError, SpikeError
from spikecore.interfaces.dataset import Batch, Split, TargetKind


def assemble(split: Split, index: Iterable[Any], is_sequence: bool, generator: torch.Generator | None = None) -> Batch:
    """The samples of these indices: by the split's own `collate` where it has one, else stacked.

    Args:
        split: gives the samples.
        index: which ones.
        is_sequence: samples have a time axis, which then comes first.
        generator: for a `collate` that draws; None while evaluating.

    Raises:
        DatasetError: samples are not what the dataset says, or do not fit together; see `put_together`.
        ContractError: see `put_together`.
    """
    indices = [int(i) for i in index]
    read_several = getattr(split, "__getitems__", None)
    if read_several is None:
        samples = [split[i] for i in indices]
    else:
        samples = read_several(indices)
    return put_together(split, samples, is_sequence, generator, indices)


def put_together(
    split: Split,
    samples: Sequence[tuple[Tensor, int | Tensor]],
    is_sequence: bool,
    generator: torch.Generator | None = None,
    indices: Sequence[int] | None = None,
) -> Batch:
    """As `assemble`, of samples that were read already.

    Args:
        split: that they are from.
        samples: of the batch.
        is_sequence: they have a time axis, which then comes first.
        generator: for a `collate` that draws; None while evaluating.
        indices: of the samples in the split, for messages.

    Raises:
        DatasetError: samples do not fit together; names two that differ. Or the split's own `collate` failed.
        ContractError: `collate` gives no `Batch`, or the labels are not of the target.
    """
    names = _names(split, samples, indices)
    collate = getattr(split, "collate", None)
    if collate is None:
        target = getattr(split, "target", None)
        return _stack(samples, is_sequence, "class" if target is None else target.kind, names)
    try:
        batch = collate(samples, generator)
    except SpikeError:
        raise
    except Exception as error:
        raise DatasetError(
            f"the dataset's collate failed on {', '.join(names)}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(batch, Batch):
        raise ContractError(
            f"the dataset's collate gave {type(batch).__name__} for {', '.join(names)}; it must give a "
            "spikecore.interfaces.Batch(x, label, mask)"
        )
    return batch


def stack(samples: Sequence[tuple[Tensor, int | Tensor]], is_sequence: bool, target: TargetKind) -> Batch:
    """Samples of one shape, and their labels as the target says: see the table in `interfaces.dataset`.

    Raises:
        DatasetError: samples, or labels that are stacked, differ in shape.
        ContractError: the labels are not of the target.
    """
    return _stack(samples, is_sequence, target, [f"sample {place} of the batch" for place in range(len(samples))])


def _stack(
    samples: Sequence[tuple[Tensor, int | Tensor]], is_sequence: bool, target: TargetKind, names: Sequence[str]
) -> Batch:
    inputs = [x for x, _ in samples]
    labels = [label for _, label in samples]
    _require_one_shape(inputs, names, "an x", "give the split a collate(samples, generator) that pads them")
    tensors = [label for label in labels if isinstance(label, Tensor)]
    if target != "items" and len(tensors) == len(labels):  # labels of mixed types are refused by `stack_labels`
        _require_one_shape(tensors, names, "a label", "give all labels one shape, or the target 'items'")
    x = torch.stack(inputs)
    return Batch(x.transpose(0, 1) if is_sequence else x, stack_labels(labels, target))


def _require_one_shape(tensors: Sequence[Tensor], names: Sequence[str], what: str, cure: str) -> None:
    for tensor, name in zip(tensors, names, strict=True):
        if tensor.shape != tensors[0].shape:
            raise DatasetError(
                f"{name} has {what} of the shape {tuple(tensor.shape)}, {names[0]} one of {tuple(tensors[0].shape)}; "
                f"samples are stacked into a batch only where they have one shape: {cure}"
            )


def _names(split: Split, samples: Sequence[object], indices: Sequence[int] | None) -> list[str]:
    """What messages call the samples."""
    if indices is None:
        return [f"sample {place} of the batch" for place in range(len(samples))]
    name_of = getattr(split, "name_of", None)
    if name_of is None:
        return [f"sample {index}" for index in indices]
    return [name_of(index) for index in indices]


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
