"""What several tests share."""

import dataclasses

import torch
from torch import nn as torch_nn

from spikecore import nn
from spikecore.testing.training import small_task


def spiking_net(num_outputs, seed=0, norm=False):
    """`[T, B, 1, 4, 4]` → `[T, B, num_outputs]`; its neurons fire on the small patterns."""
    torch.manual_seed(seed)
    layers = [nn.Flatten(-3), nn.Linear(16, 20)]
    if norm:
        layers.append(nn.BatchNorm1d(20))
    layers += [nn.LIF(v_threshold=0.3, backend="torch"), nn.Linear(20, num_outputs)]
    return torch_nn.Sequential(*layers)


def spiking_task(trainer, seed=0, norm=False, is_sequence=False):
    """The small task with a net that spikes."""
    task = small_task(trainer, is_sequence)
    task = dataclasses.replace(task, model=spiking_net(task.num_outputs, seed, norm))
    assert firing_rate(task) > 0.01
    return task


def firing_rate(task):
    """Of the net's neurons on a few training samples."""
    x = samples(task)[0]
    with torch.no_grad():
        rate = float(task.model.eval()[:-1](x).mean())
    task.model.train()
    return rate


def samples(task, indices=range(8)):
    """`[T, B, ...]` and labels of training samples."""
    chosen = [task.train[int(index)] for index in indices]
    x = torch.stack([x for x, _ in chosen])
    x = x.transpose(0, 1) if task.is_sequence else x.expand(4, *x.shape)
    labels = [label for _, label in chosen]
    return x, torch.tensor(labels) if isinstance(labels[0], int) else torch.stack(labels)
