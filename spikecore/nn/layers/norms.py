"""Normalisation over time; arguments and `state_dict` keys are those of the torch layers.

In training mode batch norm takes its statistics over time and batch together in multi-step mode, over the batch alone
in single-step mode; in eval mode the two agree.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from spikecore.nn.layers.fold import FoldsTime
from spikecore.nn.layers.sync_norm import ProcessBatchNorm
from spikecore.torch_internals import BatchNorm


def _convert(module: nn.Module, process_group: Any) -> nn.Module:
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module, process_group)  # type: ignore[no-untyped-call]
    shared = ProcessBatchNorm(1)
    shared.__dict__.update(converted.__dict__)
    return shared


class BatchNorm1d(FoldsTime, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over `[T, B, C]` or `[T, B, C, L]`."""

    ranks = (2, 3)


class BatchNorm2d(FoldsTime, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over `[T, B, C, H, W]`."""

    ranks = (4,)


class BatchNorm3d(FoldsTime, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` over `[T, B, C, D, H, W]`."""

    ranks = (5,)


class SyncBatchNorm(FoldsTime, ProcessBatchNorm):
    """`torch.nn.SyncBatchNorm` over `[T, B, C, ...]`, on the CPU as on a GPU.

    Convert a net with this class's `convert_sync_batchnorm`: torch's own puts a plain `torch.nn.SyncBatchNorm` in the
    place of every batch norm, which reads axis 1 of `[T, B, C, ...]` as the channels. (Inside `fold_time` and
    `ConvBNNeuron`, which fold time themselves, torch's conversion is right as well.)
    """

    ranks = range(2, 64)

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group: Any = None) -> nn.Module:
        """`module` with every batch norm replaced by a synchronised one that folds time wherever the old one did."""
        if isinstance(module, BatchNorm1d | BatchNorm2d | BatchNorm3d):
            plain = _convert(module, process_group)
            folding = cls(1, step_mode=module.step_mode)
            folding.__dict__.update(plain.__dict__)
            return folding
        if isinstance(module, BatchNorm):
            return _convert(module, process_group)
        for name, child in module.named_children():
            setattr(module, name, cls.convert_sync_batchnorm(child, process_group))
        return module


class GroupNorm(FoldsTime, nn.GroupNorm):
    """`torch.nn.GroupNorm` over `[T, B, C, ...]`; every step has its own statistics."""

    ranks = range(2, 64)


class LayerNorm(FoldsTime, nn.LayerNorm):
    """`torch.nn.LayerNorm` over `[T, B, ...]`; every step has its own statistics."""

    ranks = range(2, 64)
