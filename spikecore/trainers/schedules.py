"""Schedules by name: how much of the peak learning rate is used, as training goes on.

constant      1
cosine        final + (1 - final) (1 + cos π p) / 2          p: share of the training that is done, 0 .. 1

Plugins add others, as `spikecore.choices` named `schedule.NAME`: a frozen dataclass derived from `Schedule`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from spikecore.errors import ContractError
from spikecore.interfaces.component import OneOf, Range


class Schedule:
    """Base of choices in the table `schedule`."""

    def __call__(self, progress: float) -> float:
        """The factor of the peak learning rate.

        Args:
            progress: share of the training that is done, 0 to 1.
        """
        raise NotImplementedError(f"{type(self).__name__} declares no __call__")

    def factors(self, num: int) -> list[float]:
        """The factors of a training of `num` epochs (or steps), one for each, in order; a schedule that counts epochs
        instead of shares of the training overrides this.

        Example:
            >>> Cosine().factors(2)
            [1.0, 0.5]
        """
        return [self(index / num) for index in range(num)]


def factors_of(schedule: Schedule, num: int) -> tuple[float, ...]:
    """The factors of `num` epochs or steps, checked: a plugin may have written them.

    Raises:
        ContractError: there are more or fewer, or one is no finite number.
    """
    who = f"{type(schedule).__name__}.factors({num})"
    factors: object = schedule.factors(num)
    if not isinstance(factors, Sequence) or len(factors) != num:
        count = len(factors) if isinstance(factors, Sequence) else repr(factors)[:80]
        raise ContractError(f"{who} must give a factor for each of the {num} epochs (or steps), got {count}")
    for index, factor in enumerate(factors):
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not math.isfinite(factor):
            raise ContractError(f"{who} must give finite numbers, got {factor!r:.80} at place {index}")
    return tuple(factors)


SCHEDULE = OneOf("schedule", Schedule)
"""For a trainer's option `schedule`: `Annotated[Any, SCHEDULE]`."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The peak learning rate throughout."""

    def __call__(self, progress: float) -> float:
        return 1.0


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine, from the peak down.

    Args:
        final: share of the peak that is left at the end.

    Source: Loshchilov and Hutter, SGDR (ICLR 2017), without restarts.

    Example:
        >>> [round(Cosine(final=0.5)(progress), 4) for progress in (0.0, 0.5, 1.0)]
        [1.0, 0.75, 0.5]
    """

    final: Annotated[float, Range(ge=0.0, le=1.0)] = 0.0

    def __call__(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
