"""Normalisation over time; arguments and `state_dict` keys are those of the torch layers.

In training mode batch norm takes its statistics over time and batch together in multi-step mode, over the batch alone
in single-step mode; in eval mode the two agree.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from spikecore.nn.layers.fold import FoldsTime
from spikecore.nn.layers.sync_norm import FoldingProcessBatchNorm, ProcessBatchNorm, is_synchronised
from spikecore.torch_internals import BatchNorm


def _convert(module: nn.Module, process_group: Any) -> nn.Module:
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module, process_group)  # type: ignore[no-untyped-call]
    return converted


class BatchNorm1d(FoldsTime, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over `[T, B, C]` or `[T, B, C, L]`."""

    ranks = (2, 3)


class BatchNorm2d(FoldsTime, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over `[T, B, C, H, W]`."""

    ranks = (4,)


class BatchNorm3d(FoldsTime, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` over `[T, B, C, D, H, W]`."""

    ranks = (5,)


class SyncBatchNorm(FoldsTime, nn.SyncBatchNorm):
    """`torch.nn.SyncBatchNorm` over `[T, B, C, ...]`.

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


def synchronize_batch_norms(net: nn.Module) -> nn.Module:
    """`net` with batch norms whose statistics in training mode come from all processes of torch.distributed.

    On GPUs these are `SyncBatchNorm`, elsewhere norms of our own, which compute the same. Parameters, buffers and the
    keys of `state_dict` stay; a block with such a norm runs unfused, as `spikecore.explain` says.

    Args:
        net: changed in place, unless it is a batch norm itself.
    """
    if isinstance(net, BatchNorm):
        if is_synchronised(net):
            return net
        device = next((tensor.device.type for tensor in [*net.parameters(), *net.buffers()]), "cpu")
        if device == "cuda":
            return SyncBatchNorm.convert_sync_batchnorm(net)
        shared: nn.Module = ProcessBatchNorm(1)
        if isinstance(net, FoldsTime):
            shared = FoldingProcessBatchNorm(1, step_mode=net.step_mode)
        shared.__dict__.update(net.__dict__)
        return shared
    for name, child in net.named_children():
        setattr(net, name, synchronize_batch_norms(child))
    return net


class GroupNorm(FoldsTime, nn.GroupNorm):
    """`torch.nn.GroupNorm` over `[T, B, C, ...]`; every step has its own statistics."""

    ranks = range(2, 64)


class LayerNorm(FoldsTime, nn.LayerNorm):
    """`torch.nn.LayerNorm` over `[T, B, ...]`; every step has its own statistics."""

    ranks = range(2, 64)
