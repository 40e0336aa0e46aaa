"""Tasks built from the usual parts: a dataset, an encoder, and a net that fits both."""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from spikecore.errors import OptionError
from spikecore.interfaces.dataset import Dataset, Split, TargetKind
from spikecore.interfaces.task import Parts, Task
from spikecore.interfaces.trainer import TaskKind
from spikecore.trainers.splits import cut_validation, target_of, task_split, unaugmented


def dataset_task(parts: Parts, learns: TaskKind | TargetKind = "class", val_share: float = 0.0) -> Task:
    """The splits of the dataset, its encoder, and a net that takes what the encoder gives.

    Args:
        parts: with the roles dataset, encoder, model and neuron.
        learns: `capabilities.task` of the trainer, or the target that it reads (`items`); the dataset's target must be
            it, where it is a target.
        val_share: see `dataset_splits`.

    Raises:
        OptionError: the dataset's target, or the model's, is another one; `val_share` leaves a class empty.
    """
    dataset = parts.dataset()
    require_target(dataset, learns)
    encoder = parts.encoder()
    splits = dataset_splits(dataset, val_share, parts.seed)
    model = parts.model(step_shape(dataset, encoder, splits["train"], parts.device), dataset.num_outputs)
    require_model(model, dataset)
    return Task(
        model=model,
        encoder=encoder,
        train=splits["train"],
        val=splits.get("val"),
        test=splits["test"],
        num_outputs=dataset.num_outputs,
        is_sequence=dataset.is_sequence,
        classes=tuple(dataset.info.classes),
    )


def dataset_splits(dataset: Dataset, val_share: float, seed: int) -> dict[str, Split]:
    """`train`, `test` and, where there is one, `val`; the labels of every sample are checked when it is read.

    Args:
        dataset: its own split `val` is used where it has one.
        val_share: otherwise this share of the training split is taken for `val`, of each class the same; 0 for none.
        seed: which samples these are.

    Raises:
        OptionError: the share leaves a class without samples for training or for validation.
    """
    train = task_split(dataset, "train")
    splits: dict[str, Split] = {"train": train, "test": task_split(dataset, "test")}
    if "val" in dataset.splits:
        splits["val"] = unaugmented(task_split(dataset, "val"))
    elif val_share > 0:
        splits["train"], splits["val"] = cut_validation(train, val_share, seed, dataset.info.classes)
    return splits


def require_target(dataset: Dataset, learns: TaskKind | TargetKind) -> None:
    """Refuse a dataset whose labels are not what a trainer learns from.

    Raises:
        OptionError: with both, and what to do.
    """
    target = dataset.capabilities.target
    if learns in get_args(TargetKind) and target != learns:
        raise OptionError(
            f"the labels of dataset {type(dataset).__name__} are of the target {target!r}, and this trainer learns "
            f"{learns!r}: choose a trainer for {target!r}, or another dataset (`spike info KIND NAME` shows both)"
        )


def require_model(model: nn.Module, dataset: Dataset) -> None:
    """Refuse a net that does not say that it can be trained for the dataset's target.

    Raises:
        OptionError: with both.
    """
    capabilities = getattr(model, "capabilities", None)
    known = getattr(capabilities, "targets", None)
    target = target_of(dataset).kind
    if known is not None and target not in known:
        raise OptionError(
            f"model {type(model).__name__} can be trained for {', '.join(known)}, and the labels of dataset "
            f"{type(dataset).__name__} are of the target {target!r}: choose another model"
        )


def step_shape(
    dataset: Dataset, encoder: nn.Module, train: Split, device: torch.device | None = None
) -> tuple[int, ...]:
    """Shape of one step of one sample as the model gets it: that of the dataset, unless the encoder widens it.

    Args:
        dataset: says what a sample is.
        encoder: makes sequences of samples.
        train: one sample of it is encoded, where the encoder widens it.
        device: the encoder's; None for the CPU.
    """
    capabilities = encoder.capabilities
    if dataset.is_sequence or capabilities.keeps_shape or not len(train):  # type: ignore[union-attr]
        return tuple(dataset.sample_shape)
    with torch.no_grad():
        x = train[0][0].unsqueeze(0).to(device)
        return tuple(encoder(x, torch.Generator(x.device)).shape[2:])
