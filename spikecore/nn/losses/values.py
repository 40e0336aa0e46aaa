"""Losses for targets that are no classes: values of a sample, or a value or a class for each of its steps.

out [T, B, C, ...];  y [B, C, ...] values, [T, B, C, ...] values of steps, or [T, B, ...] classes of steps

value_loss.mse                 MSE(m, y)                     m = mean over t of out[t], or the last one
sequence_loss.mse              1/T Σ_t MSE(out[t], y[t])
sequence_loss.cross_entropy    1/T Σ_t CE(out[t], y[t])

MSE(z, z') = mean over the C outputs of (z - z')². Where samples were padded, T counts the own steps of each sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spikecore.errors import InputError, ShapeError
from spikecore.nn.losses.base import CrossEntropyConfig, Loss, cross_entropy, one_each
from spikecore.nn.readouts import check_mask, last, over_own_steps, rate, value_bounds, wide_sequence


class ValueMSE(Loss):
    """MSE(m, y), m = 1/T Σ_t out[t], or out[T - 1] with `value="last"`.

    Gradients: 2 (m - y) / (C T) for every step; with `last`, 2 (m - y) / C for the last one.

    Example:
        >>> out = torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]]])
        >>> ValueMSE()(out, torch.tensor([[2.0, 2.0]])).item()
        2.0
    """

    has_classes = False

    @dataclass(frozen=True)
    class Config(Loss.Config):
        """
        Args:
            value: what the output stands for: its mean over time, or its last step.
        """

        value: Literal["mean", "last"] = "mean"

    @property
    def readout(self) -> str:  # type: ignore[override]  # of one loss, where others have it for all
        """What the output stands for, by the option `value`."""
        return "rate" if self.config.value == "mean" else "last"

    def per_sample(self, out: Tensor, target: Tensor) -> Tensor:
        value = rate(out) if self.config.value == "mean" else last(out)
        return (value - target).square().mean(1)

    def each(self, out: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of each sample, `[B, ...]`.

        Args:
            out: `[T, B, C, ...]`, floating point.
            target: values `[B, C, ...]`, floating point.
            mask: bool `[T, B]`, see `Loss.forward`.

        Raises:
            ShapeError: `out` or `target` has the wrong shape.
            TypeError: one of them is not floating point.
        """
        name = type(self).__name__
        out = wide_sequence(out, name)
        target = _checked_values(target, tuple(out.shape[1:]), out, name)
        return one_each(over_own_steps(self.per_sample, out, mask, target), out, name)


class SequenceMSE(Loss):
    """1/T Σ_t MSE(out[t], y[t]).

    Gradients: 2 (out[t] - y[t]) / (C T).

    Example:
        >>> out = torch.tensor([[[1.0]], [[3.0]]])
        >>> SequenceMSE()(out, torch.tensor([[[0.0]], [[3.0]]])).item()
        0.5
    """

    has_classes = False

    def each(self, out: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of each sample, `[B, ...]`.

        Args:
            out: `[T, B, C, ...]`, floating point.
            target: values `[T, B, C, ...]`, floating point.
            mask: bool `[T, B]`, see `Loss.forward`.

        Raises:
            ShapeError: `out`, `target` or the mask has the wrong shape.
            TypeError: one of them is not floating point.
        """
        name = type(self).__name__
        out = wide_sequence(out, name)
        target = _checked_values(target, tuple(out.shape), out, name)
        return _mean_of_own_steps((out - target).square().mean(2), mask)


class SequenceCrossEntropy(Loss):
    """1/T Σ_t CE(out[t], y[t]): a class for each step.

    Gradients: (softmax(out[t]) - y[t]) / T, y[t] as one-hot.

    Example:
        >>> out = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> round(SequenceCrossEntropy()(out, torch.tensor([[0], [1]])).item(), 4)
        0.3133
    """

    Config = CrossEntropyConfig

    def each(self, out: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of each sample, `[B, ...]`.

        Args:
            out: `[T, B, C, ...]`, floating point.
            target: classes `[T, B, ...]`, whole numbers from 0 to C - 1.
            mask: bool `[T, B]`, see `Loss.forward`.

        Raises:
            ShapeError: `out`, `target` or the mask has the wrong shape.
            TypeError: `out` is not floating point, or `target` not whole numbers.
            InputError: a class outside 0 .. C - 1.
        """
        name = type(self).__name__
        out = wide_sequence(out, name)
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise TypeError(f"{name} takes classes as whole numbers, got {target.dtype}: call .long() on them")
        shape = (*out.shape[:2], *out.shape[3:])
        if tuple(target.shape) != shape:
            raise ShapeError(
                f"{name}: classes are {shape} for an output of {tuple(out.shape)}, got {tuple(target.shape)}: "
                "one class per step and sample, time first"
            )
        bounds, high = value_bounds(target), out.shape[2] - 1
        if bounds is not None and not (bounds[0] >= 0 and bounds[1] <= high):
            raise InputError(f"{name}: classes lie in 0 .. {high}, got {bounds[0]:g} to {bounds[1]:g}")
        steps = cross_entropy(out.flatten(0, 1), target.long().flatten(0, 1), self.config.label_smoothing)
        return _mean_of_own_steps(steps.view(shape), mask)


def _checked_values(target: Tensor, shape: tuple[int, ...], out: Tensor, name: str) -> Tensor:
    if not target.is_floating_point():
        raise TypeError(f"{name} takes values, floating point, got {target.dtype}: call .float() on them")
    if tuple(target.shape) != shape:  # broadcasting would compare what does not belong together
        raise ShapeError(f"{name}: values are {shape} for an output of {tuple(out.shape)}, got {tuple(target.shape)}")
    return target.to(out.dtype)


def _mean_of_own_steps(steps: Tensor, mask: Tensor | None) -> Tensor:
    """`[T, B, ...]` → `[B, ...]`, the mean over each sample's own steps."""
    if mask is None:
        return steps.mean(0)
    check_mask(mask, steps)
    own = mask.to(steps.device).view(*mask.shape, *[1] * (steps.dim() - 2))
    # Not a product with the mask: what was padded may be infinite or NaN.
    return torch.where(own, steps, torch.zeros_like(steps)).sum(0) / own.sum(0)
