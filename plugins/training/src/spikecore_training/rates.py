"""The learning rate of each step: peak · schedule · warm-up."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from spikecore.trainers import Schedule, factors_of
from spikecore_training.schedules import Plateau


@functools.lru_cache(maxsize=8)
def _factors(schedule: Schedule, num: int) -> tuple[float, ...]:
    return factors_of(schedule, num)


class LearningRates:
    """lr(e, s) = peak · f(e, s) · w(e + s / S);  w(p) = start + (1 - start) · p / warmup_epochs below `warmup_epochs`

    f is the schedule's factor, of epoch e or of step e · S + s.

    Args:
        config: the trainer's options.
        steps_per_epoch: S.
        scores: of the epochs so far, for a schedule that follows them.
    """

    def __init__(self, config: Any, steps_per_epoch: int, scores: Sequence[float] = ()) -> None:
        self._config, self._steps = config, steps_per_epoch
        self._is_per_step = config.schedule_per == "step"
        self._now: float | None = None
        self._factors: tuple[float, ...] = ()
        if isinstance(config.schedule, Plateau):
            self._now = config.schedule.after(scores)
            return
        num = config.epochs * (steps_per_epoch if self._is_per_step else 1)
        self._factors = _factors(config.schedule, num)

    def at(self, epoch: int, step: int) -> float:
        """The learning rate of a step of an epoch, both counted from 0."""
        config = self._config
        factor = self._now
        if factor is None:
            factor = self._factors[epoch * self._steps + step if self._is_per_step else epoch]
        rate: float = config.lr * factor
        passed = epoch + step / self._steps
        if passed < config.warmup_epochs:
            rate *= config.warmup_start + (1 - config.warmup_start) * passed / config.warmup_epochs
        return rate

    def set(self, optimizer: torch.optim.Optimizer, epoch: int, step: int) -> None:
        """Give all parameter groups the rate of a step."""
        rate = self.at(epoch, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
