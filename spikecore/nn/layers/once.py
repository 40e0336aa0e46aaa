"""Running a layer once where every step of its input is the same.

`direct` gives a sequence whose steps are one piece of memory: stride 0 along T. A layer that gives equal outputs for
equal inputs, and keeps nothing from step to step, needs only one of them; its output is repeated in the same way, so
that the next layer sees it too, up to the first neuron.

    x [T, B, ...] of stride 0 → x[0] → layer → y [B, ...] → y repeated, stride 0

Outputs and gradients are those of T runs but for the order in which torch's operators sum. Batch norm in training
counts T times as many values in its running variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spikecore.backends.plain import is_plain
from spikecore.nn.running_statistics import update_running, uses_batch_statistics
from spikecore.torch_internals import BatchNorm, check_norm_input, has_hooks, wants_own_gradient

Layer = TypeVar("Layer", bound=type[nn.Module])
_STEP = "spikecore_step"
"""The attribute of a repeated tensor that holds its step: gradients then need not go through a sum over T."""
_INVARIANT: set[type[nn.Module]] = {
    nn.Sequential,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Softplus,
    nn.ZeroPad1d,
    nn.ZeroPad2d,
    nn.ZeroPad3d,
}
"""Torch's layers that are run once; of other classes, those marked with `time_invariant`."""


def time_invariant(layer: Layer) -> Layer:
    """Mark a class of layers: equal inputs give equal outputs, and nothing is kept from step to step.

    Where all steps of its input are the same memory, such a layer runs once. The mark does not go to subclasses, which
    may add noise. A class decorator, for classes that derive from `FoldsTime` or are wrapped with `fold_time`.
    """
    _INVARIANT.add(layer)
    return layer


def is_time_invariant(module: nn.Module) -> bool:
    """Are the module and all its parts marked, and watched by no forward hook that would count calls or see steps?"""
    return all(type(part) in _INVARIANT and not has_hooks(part) for part in module.modules())


def repeated_step(x: Any) -> Tensor | None:
    """The step `[B, ...]` of a sequence `[T, B, ...]` whose steps are all the same memory, or None.

    None as well where the gradient of each step may be wanted.
    """
    if not isinstance(x, Tensor) or x.dim() < 2 or x.shape[0] < 2 or x.stride(0) != 0:
        return None
    if not x.requires_grad:
        return x[0] if is_plain((x,)) else None
    step: Tensor | None = getattr(x, _STEP, None) if is_plain((x,)) else None
    return None if wants_own_gradient(x) else step


def repeat_step(step: Tensor, num_steps: int) -> Tensor:
    """`[B, ...]` as `[T, B, ...]`, all steps the same memory."""
    repeated = step.expand(num_steps, *step.shape)
    if step.requires_grad:
        setattr(repeated, _STEP, step)
    return repeated


def run_once(function: Callable[..., Any], module: nn.Module, x: Any) -> Tensor | None:
    """`[T, B, ...]`: what `function`, the forward of `module` without T, makes of one step of x, repeated.

    None where it must see every step: steps differ, the module is not time invariant, or it gives more than a tensor.
    """
    if torch.compiler.is_compiling():
        return None
    step = repeated_step(x)
    if step is None or not is_time_invariant(module):
        return None
    batch_norms = [part for part in module.modules() if isinstance(part, BatchNorm) and uses_batch_statistics(part)]
    if not batch_norms:
        out = function(step)
    elif module is batch_norms[0] and step.numel() >= 2 * module.num_features:
        out = _norm_step(module, step, x.shape[0])
    else:
        return None
    if not isinstance(out, Tensor) or not out.dim() or out.shape[0] != step.shape[0]:
        return None
    return repeat_step(out, x.shape[0])


def _norm_step(norm: Any, step: Tensor, num_steps: int) -> Tensor:
    """Batch norm with the statistics of one step; the running variance is that of T times as many values."""
    check_norm_input(norm, step)
    mean = var = None
    if norm.training and norm.track_running_stats:
        mean, var = torch.zeros_like(norm.running_mean), torch.zeros_like(norm.running_var)
    # With momentum 1, torch leaves the statistics of this step in mean and var.
    out = nn.functional.batch_norm(step, mean, var, norm.weight, norm.bias, training=True, momentum=1.0, eps=norm.eps)
    if mean is not None and var is not None:
        count = step.numel() // norm.num_features
        total = num_steps * count
        # torch's var is divided by count - 1. All T steps have the same sum of squares each: divided by total - 1.
        biased = var.double() * ((count - 1) / count)
        update_running(norm, mean, biased * (total / (total - 1)))
    return out
