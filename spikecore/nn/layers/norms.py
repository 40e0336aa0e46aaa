"""Normalisation over time; arguments and `state_dict` keys are those of the torch layers.

In training mode batch norm takes its statistics over time and batch together in multi-step mode, over the batch alone
in single-step mode; in eval mode the two agree.
"""

from __future__ import annotations

from collections.abc import Callable
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

        def convert(norm: nn.Module) -> nn.Module:
            plain = _convert(norm, process_group)
            if not isinstance(norm, BatchNorm1d | BatchNorm2d | BatchNorm3d):
                return plain
            folding = cls(1, step_mode=norm.step_mode)
            folding.__dict__.update(plain.__dict__)
            return folding

        return _replace_norms(module, convert, {})


def synchronize_batch_norms(net: nn.Module) -> nn.Module:
    """`net` with batch norms whose statistics in training mode come from all processes of torch.distributed.

    On GPUs these are `SyncBatchNorm`, elsewhere norms of our own, which compute the same. Parameters, buffers and the
    keys of `state_dict` stay; a block with such a norm runs unfused, as `spikecore.explain` says.

    Args:
        net: changed in place, unless it is a batch norm itself.
    """
    return _replace_norms(net, _synchronise, {})


def _synchronise(norm: nn.Module) -> nn.Module:
    if is_synchronised(norm):
        return norm
    device = next((tensor.device.type for tensor in [*norm.parameters(), *norm.buffers()]), "cpu")
    if device == "cuda":
        return SyncBatchNorm.convert_sync_batchnorm(norm)
    synchronised: nn.Module = ProcessBatchNorm(1)
    if isinstance(norm, FoldsTime):
        synchronised = FoldingProcessBatchNorm(1, step_mode=norm.step_mode)
    synchronised.__dict__.update(norm.__dict__)
    return synchronised


def _replace_norms(
    module: nn.Module, replace: Callable[[nn.Module], nn.Module], done: dict[nn.Module, nn.Module]
) -> nn.Module:
    """The module with `replace(norm)` in the place of every batch norm, at any depth; itself another one if it is one.

    Args:
        module: changed in place.
        replace: makes the new norm.
        done: what has become of modules before, so that a norm which stands at several places stays one norm.
    """
    if module in done:
        return done[module]
    done[module] = module
    if isinstance(module, BatchNorm):
        done[module] = replace(module)
        return done[module]
    for name, child in module._modules.items():
        if child is not None:
            setattr(module, name, _replace_norms(child, replace, done))
    return module


class GroupNorm(FoldsTime, nn.GroupNorm):
    """`torch.nn.GroupNorm` over `[T, B, C, ...]`; every step has its own statistics."""

    ranks = range(2, 64)


class LayerNorm(FoldsTime, nn.LayerNorm):
    """`torch.nn.LayerNorm` over `[T, B, ...]`; every step has its own statistics."""

    ranks = range(2, 64)
