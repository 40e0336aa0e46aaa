"""Tasks built from the usual parts: a dataset, an encoder, and a net that fits both."""

from __future__ import annotations

import torch
from torch import nn

from spikecore.interfaces.dataset import Dataset, Split
from spikecore.interfaces.task import Parts, Task


def dataset_task(parts: Parts) -> Task:
    """Train and test split of the dataset, its encoder, and a net that takes what the encoder gives.

    Args:
        parts: with the roles dataset, encoder, model and neuron.
    """
    dataset, encoder = parts.dataset(), parts.encoder()
    train, test = dataset.split("train"), dataset.split("test")
    model = parts.model(step_shape(dataset, encoder, train), dataset.num_classes)
    return Task(
        model=model,
        encoder=encoder,
        train=train,
        test=test,
        num_outputs=dataset.num_classes,
        is_sequence=dataset.is_sequence,
        classes=tuple(dataset.info.classes),
    )


def step_shape(dataset: Dataset, encoder: nn.Module, train: Split) -> tuple[int, ...]:
    """Shape of one step of one sample as the model gets it: that of the dataset, unless the encoder widens it."""
    capabilities = encoder.capabilities
    if dataset.is_sequence or capabilities.keeps_shape or not len(train):  # type: ignore[union-attr]
        return tuple(dataset.sample_shape)
    with torch.no_grad():
        return tuple(encoder(train[0][0].unsqueeze(0), torch.Generator()).shape[2:])
