"""Shared by all losses: checks of output and target, reduction, cross entropy and target levels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikecore.errors import ContractError, InputError, ShapeError
from spikecore.interfaces.component import Configurable, Range, make_config, refuse_positional
from spikecore.interfaces.options import fields_of
from spikecore.nn.readouts import over_own_steps, value_bounds, wide_sequence

Finite = Annotated[float, Range(gt=-math.inf, lt=math.inf)]
Share = Annotated[float, Range(ge=0.0, le=1.0)]


class Loss(Configurable, nn.Module):
    """Base: checks output and labels, calls `per_sample`, reduces.

    Args:
        options: the fields of `Config`.

    Raises:
        OptionError: a wrong option.
    """

    readout: ClassVar[str] = "rate"
    """The readout whose largest score is the class that this loss trains for."""
    has_classes: ClassVar[bool] = True
    """Labels are classes; False where they are values."""

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            reduction: `mean` or `sum` over the samples, or `none`.
        """

        reduction: Literal["mean", "sum", "none"] = "mean"

    config: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        refuse_positional(type(self), args)
        nn.Module.__init__(self)
        self.config = make_config(type(self), options)

    def __eq__(self, other: object) -> bool:
        """Equal by type and options, as values in a Config are; a loss with tensors of its own equals itself only."""
        if not isinstance(other, Loss) or self.state_dict() or other.state_dict():
            return self is other
        return type(self) is type(other) and bool(self.config == other.config)

    def __hash__(self) -> int:
        return hash((type(self), self.config))

    def per_sample(self, out: Tensor, target: Tensor) -> Tensor:
        """The loss of each sample, `[B, ...]`, from checked arguments."""
        raise NotImplementedError(f"{type(self).__name__} must implement per_sample(out, target)")

    def forward(self, out: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of `out` `[T, B, C, ...]`.

        Args:
            out: floating point.
            target: labels `[B, ...]`, whole numbers from 0 to C - 1; or probabilities `[B, C, ...]`, floating point.
            mask: bool `[T, B]`, True for a sample's own steps, where shorter samples were padded (`Batch.mask`): the
                loss is that of the samples without their padding.

        Returns:
            a number, or `[B, ...]` with `reduction="none"`; float32 for half precision.

        Raises:
            ShapeError: `out`, `target` or the mask has the wrong shape, or a sample has no step of its own.
            TypeError: `out` is not floating point, `target` neither integer nor floating point, the mask not bool.
            InputError: a label outside 0 .. C - 1, a probability outside 0 .. 1.
        """
        loss = self.each(out, target, mask)
        if self.config.reduction == "mean":
            return loss.mean()
        if self.config.reduction == "sum":
            return loss.sum()
        return loss

    def each(self, out: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of each sample, `[B, ...]`, whatever `reduction` says; see `forward`.

        Raises:
            ContractError: `per_sample` gave something else, such as a mean, which would be weighed as one sample.
        """
        name = type(self).__name__
        out = wide_sequence(out, name)
        return one_each(over_own_steps(self.per_sample, out, mask, _check_target(out, target, name)), out, name)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in fields_of(self.config).items())


def one_each(losses: Tensor, out: Tensor, name: str) -> Tensor:
    """What `per_sample` gave; not a mean over the batch, which would be weighed as the loss of one sample.

    Raises:
        ContractError: it has no loss for each sample.
    """
    if losses.shape[:1] != out.shape[1:2]:
        raise ContractError(
            f"{name}.per_sample must return a loss for each of the {out.shape[1]} samples, [B, ...], got the shape "
            f"{tuple(losses.shape)}: reduce over classes and steps only; functions of torch take reduction='none'"
        )
    return losses


def _check_target(out: Tensor, target: Tensor, name: str) -> Tensor:
    batch = (out.shape[1], *out.shape[3:])
    if target.is_floating_point():
        if target.shape != out.shape[1:]:
            raise ShapeError(
                f"{name}: probabilities are {tuple(out.shape[1:])} for an output of {tuple(out.shape)}, got "
                f"{tuple(target.shape)}; labels are whole numbers: call .long() on them"
            )
        bounds = value_bounds(target)
        high = 1.0
        cure = "probabilities are not logits"
        target = target.to(out.dtype)
    else:
        if target.is_complex() or target.dtype == torch.bool:
            raise TypeError(f"{name} takes labels as whole numbers or probabilities, got {target.dtype}")
        if tuple(target.shape) != batch:
            raise ShapeError(
                f"{name}: labels are {batch} for an output of {tuple(out.shape)}, got {tuple(target.shape)}: "
                "one label per sample, without T"
            )
        bounds = value_bounds(target)
        high = out.shape[2] - 1.0
        cure = "the net needs one output per class"
        target = target.long()
    if bounds is not None and not (bounds[0] >= 0 and bounds[1] <= high):
        raise InputError(
            f"{name}: the target lies in 0 .. {high:g} for {out.shape[2]} classes, got {bounds[0]:g} to "
            f"{bounds[1]:g}: {cure}"
        )
    return target


def levels(scores: Tensor, target: Tensor, on: float, off: float) -> Tensor:
    """y' in the shape of `scores` `[B, C, ...]`: `on` for the class, `off` for the others; probabilities between."""
    share = target
    if not target.is_floating_point():
        share = torch.zeros_like(scores).scatter(1, target.unsqueeze(1), 1.0)
    return off + (on - off) * share


def cross_entropy(scores: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    return functional.cross_entropy(scores, target, reduction="none", label_smoothing=label_smoothing)


def cross_entropy_each_step(out: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    """1/T Σ_t CE(out[t], y), `[B, ...]`."""
    per_step = target.unsqueeze(-1).expand(*target.shape, out.shape[0])
    return cross_entropy(out.movedim(0, -1), per_step, label_smoothing).mean(-1)


@dataclass(frozen=True)
class CrossEntropyConfig(Loss.Config):
    """
    Args:
        label_smoothing: share of the probability that is spread evenly over all classes.
    """

    label_smoothing: Share = 0.0


@dataclass(frozen=True)
class MSEConfig(Loss.Config):
    """
    Args:
        on: wanted for the class of the sample.
        off: wanted for the other classes.
    """

    on: Finite = 1.0
    off: Finite = 0.0
