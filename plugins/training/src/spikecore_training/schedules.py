"""Schedules of `torch.optim.lr_scheduler`, computed by torch itself; core has `constant` and `cosine`.

step              gamma^⌊n / step_size⌋
multi_step        gamma^(number of milestones ≤ n)
exponential       gamma^n
polynomial        (1 - n / N)^power
linear            from `start` to `end` over the whole training
cosine_restarts   half cosines of period, period · growth, … epochs
one_cycle         up from 1 / div_factor to 1, then down to 1 / (div_factor · final_div_factor)
cyclic            triangles from `low` to 1
plateau           times `factor` whenever the score has not risen for more than `patience` epochs

n counts epochs; optimizer steps where the trainer has `schedule_per = "step"`. N is their number in the whole training.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch.optim import lr_scheduler

from spikecore.errors import OptionError
from spikecore.interfaces import Range
from spikecore.trainers import Schedule

Count = Annotated[int, Range(ge=1)]
Factor = Annotated[float, Range(gt=0.0, le=1.0)]
Share = Annotated[float, Range(ge=0.0, le=1.0)]


@dataclass(frozen=True)
class TorchSchedule(Schedule):
    """Base: `make` gives torch's scheduler, whose learning rates for a peak of 1 are the factors."""

    def make(self, optimizer: torch.optim.Optimizer, num: int) -> lr_scheduler.LRScheduler:
        """The scheduler of a training of `num` epochs or steps."""
        raise NotImplementedError(f"{type(self).__name__} declares no make")

    def factors(self, num: int) -> list[float]:
        """See `spikecore.trainers.Schedule`."""
        if not num:
            return []
        # No parameter is trained: the optimizer only carries the learning rate.
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        scheduler = self.make(optimizer, num)
        factors = []
        for index in range(num):
            factors.append(float(optimizer.param_groups[0]["lr"]))
            if index + 1 < num:
                optimizer.step()
                with warnings.catch_warnings():  # some read their own closed form, and warn of themselves
                    warnings.simplefilter("ignore")
                    scheduler.step()
        return factors

    def __call__(self, progress: float) -> float:
        raise NotImplementedError(f"{type(self).__name__} counts epochs: use factors(num)")


@dataclass(frozen=True)
class Step(TorchSchedule):
    """`StepLR`.

    Args:
        step_size: epochs (or steps) between two drops.
        gamma: what is left after each.
    """

    step_size: Count = 30
    gamma: Factor = 0.1

    def make(self, optimizer: torch.optim.Optimizer, num: int) -> lr_scheduler.LRScheduler:
        return lr_scheduler.StepLR(optimizer, self.step_size, self.gamma)


@dataclass(frozen=True)
class MultiStep(TorchSchedule):
    """`MultiStepLR`.

    Args:
        milestones: epochs (or steps) of the drops, rising.
        gamma: what is left after each.
    """

    milestones: tuple[int, ...] = (30, 60, 80)
    gamma: Factor = 0.1

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        """Milestones rise."""
        if list(config.milestones) != sorted(set(config.milestones)) or min(config.milestones, default=1) < 1:
            yield "milestones", f"must be rising whole numbers from 1 on, got {list(config.milestones)}"

    def make(self, optimizer: torch.optim.Optimizer, num: int) -> lr_scheduler.LRScheduler:
        return lr_scheduler.MultiStepLR(optimizer, list(self.milestones), self.gamma)


@dataclass(frozen=True)
class Exponential(TorchSchedule):
    """`ExponentialLR`.

    Args:
        gamma: what is left after each epoch (or step).
    """

    gamma: Factor = 0.95

    def make(self, optimizer: torch.optim.Optimizer, num: int) -> lr_scheduler.LRScheduler:
        return lr_scheduler.ExponentialLR(optimizer, self.gamma)


@dataclass(frozen=True)
class Polynomial(TorchSchedule):
    """`PolynomialLR` over the whole training.

    Args:
        power: 1 falls in a line.
    """

    power: Annotated[float, Range(gt=0.0, lt=math.inf)] = 1.0

    def make(self, optimizer: torch.optim.Optimizer, num: int) -> lr_scheduler.LRScheduler:
        return lr_scheduler.PolynomialLR(optimizer, num, self.power)


@dataclass(frozen=True)
class Linear(TorchSchedule):
    """`LinearLR` over the whole training.

    Args:
        start: factor of the first epoch (or step).
        end: factor after the last one.
    """

    start: Factor = 1.0
    end: Share = 0.0

    def make(self, optimizer: torch.optim.Optimizer, num: int) -> lr_scheduler.LRScheduler:
        return lr_scheduler.LinearLR(optimizer, self.start, self.end, num)


@dataclass(frozen=True)
class CosineRestarts(TorchSchedule):
    """`CosineAnnealingWarmRestarts`.

    Args:
        period: epochs (or steps) of the first half cosine.
        growth: each period is so many times the one before.
        final: factor at the end of each period.
    """

    period: Count = 10
    growth: Count = 1
    final: Share = 0.0

    def make(self, optimizer: torch.optim.Optimizer, num: int) -> lr_scheduler.LRScheduler:
        return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, self.period, self.growth, self.final)


@dataclass(frozen=True)
class OneCycle(TorchSchedule):
    """`OneCycleLR` of the learning rate; the momentum stays.

    Args:
        rise: share of the training in which the rate rises.
        anneal: form of rise and fall.
        div_factor: the first rate is the peak divided by it.
        final_div_factor: the last rate is the first divided by it.
    """

    rise: Annotated[float, Range(gt=0.0, lt=1.0)] = 0.3
    anneal: Literal["cos", "linear"] = "cos"
    div_factor: Annotated[float, Range(ge=1.0, lt=math.inf)] = 25.0
    final_div_factor: Annotated[float, Range(ge=1.0, lt=math.inf)] = 1e4

    def make(self, optimizer: torch.optim.Optimizer, num: int) -> lr_scheduler.LRScheduler:
        if self.rise * num <= 1:  # torch divides by the length of the rise, rise * num - 1, or begins above the peak
            raise OptionError(
                f"the schedule 'one_cycle' rises over rise = {self.rise:g} of {num} epochs (or steps), which must be "
                f"more than one: set trainer.schedule_per = 'step', train longer, or set rise above {1 / num:.3g}"
            )
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=1.0,
            total_steps=num,
            pct_start=self.rise,
            anneal_strategy=self.anneal,
            cycle_momentum=False,
            div_factor=self.div_factor,
            final_div_factor=self.final_div_factor,
        )


@dataclass(frozen=True)
class Cyclic(TorchSchedule):
    """`CyclicLR`.

    Args:
        low: factor at the feet of the triangles.
        rise: epochs (or steps) from foot to peak; the way down is as long.
        mode: `triangular2` halves each triangle.
    """

    low: Factor = 0.1
    rise: Count = 10
    mode: Literal["triangular", "triangular2"] = "triangular"

    def make(self, optimizer: torch.optim.Optimizer, num: int) -> lr_scheduler.LRScheduler:
        return lr_scheduler.CyclicLR(
            optimizer, self.low, 1.0, step_size_up=self.rise, mode=self.mode, cycle_momentum=False
        )


@dataclass(frozen=True)
class Plateau(Schedule):
    """`ReduceLROnPlateau`: follows the score of the epochs (of validation; the training loss without validation).

    Args:
        factor: what is left after each drop.
        patience: epochs without a better score that are waited for.
        min_delta: by which a score must be better to count.
        cooldown: epochs after a drop that are not counted.
        final: factor below which the rate does not fall.
    """

    factor: Annotated[float, Range(gt=0.0, lt=1.0)] = 0.1
    patience: Annotated[int, Range(ge=0)] = 10
    min_delta: Annotated[float, Range(ge=0.0, lt=math.inf)] = 1e-4
    cooldown: Annotated[int, Range(ge=0)] = 0
    final: Share = 0.0

    def after(self, scores: Sequence[float]) -> float:
        """The factor of the epoch that follows these scores; larger ones are better."""
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        scheduler = lr_scheduler.ReduceLROnPlateau(
            optimizer,
            mode="max",
            factor=self.factor,
            patience=self.patience,
            threshold=self.min_delta,
            threshold_mode="abs",
            cooldown=self.cooldown,
            min_lr=self.final,
            eps=0.0,
        )
        for score in scores:
            scheduler.step(score)
        return float(optimizer.param_groups[0]["lr"])

    def factors(self, num: int) -> list[float]:
        raise OptionError(
            "the schedule 'plateau' follows the scores of a training, and this trainer does not tell them: use the "
            "trainer supervised, regression or sequence"
        )

    def __call__(self, progress: float) -> float:
        return self.factors(1)[0]
