"""Optimizers by name, with the options that torch gives them; the learning rate is the trainer's.

adam, adamw, sgd      as in torch.optim, with its defaults, but for weight_decay = 0.0001 of adamw and sgd

Plugins add others, as `spikecore.choices` named `optimizer.NAME`: a frozen dataclass derived from `Optimizer`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch.optim.optimizer import ParamsT

from spikecore.errors import ContractError
from spikecore.interfaces.component import OneOf, Range

Decay = Annotated[float, Range(ge=0.0, lt=math.inf)]
Positive = Annotated[float, Range(gt=0.0, lt=math.inf)]
Share = Annotated[float, Range(ge=0.0, lt=1.0)]


class Optimizer:
    """Base of choices in the table `optimizer`: options that make a torch optimizer."""

    can_shard: ClassVar[bool] = True
    """It also takes parameters that are divided between processes (`DTensor`)."""

    def __call__(self, parameters: ParamsT, lr: float) -> torch.optim.Optimizer:
        """The optimizer of these parameters.

        Args:
            parameters: tensors, or groups of them, as torch.optim takes them.
            lr: the learning rate to begin with.
        """
        raise NotImplementedError(f"{type(self).__name__} declares no __call__")


def make_optimizer(choice: Optimizer, parameters: ParamsT, lr: float) -> torch.optim.Optimizer:
    """What a choice makes of these parameters, checked: a plugin may have written it.

    Raises:
        ContractError: it is no optimizer of torch.
    """
    optimizer: object = choice(parameters, lr)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ContractError(
            f"the optimizer {type(choice).__module__}.{type(choice).__qualname__} must return a torch.optim.Optimizer "
            f"when it is called, got {optimizer!r:.80}"
        )
    return optimizer


OPTIMIZER = OneOf("optimizer", Optimizer)
"""For a trainer's option `optimizer`: `Annotated[Any, OPTIMIZER]`."""


@dataclass(frozen=True)
class Adam(Optimizer):
    """`torch.optim.Adam`.

    Args:
        betas: how much of the running means of the gradient, and of its square, a step keeps; each from 0 to below 1.
        eps: added to the root, against division by zero.
        weight_decay: times the weights, added to the gradient.
    """

    betas: tuple[float, ...] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: Decay = 0.0

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        """Two betas, each from 0 to below 1."""
        if len(config.betas) != 2 or not all(0 <= beta < 1 for beta in config.betas):
            yield "betas", f"must be two numbers from 0 to below 1, got {list(config.betas)}"

    def __call__(self, parameters: ParamsT, lr: float) -> torch.optim.Optimizer:
        first, second = self.betas
        return torch.optim.Adam(parameters, lr=lr, betas=(first, second), eps=self.eps, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class AdamW(Adam):
    """`torch.optim.AdamW`: Adam with decoupled weight decay.

    Args:
        weight_decay: times the learning rate, the share that each step takes from the weights.
    """

    weight_decay: Decay = 0.0001

    def __call__(self, parameters: ParamsT, lr: float) -> torch.optim.Optimizer:
        first, second = self.betas
        return torch.optim.AdamW(parameters, lr=lr, betas=(first, second), eps=self.eps, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class SGD(Optimizer):
    """`torch.optim.SGD`.

    Args:
        momentum: share of the last step that is repeated, from 0 to below 1.
        nesterov: looks ahead by the momentum.
        weight_decay: times the weights, added to the gradient.
    """

    momentum: Share = 0.0
    nesterov: bool = False
    weight_decay: Decay = 0.0001

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        """Nesterov's step needs a momentum."""
        if config.nesterov and not config.momentum:
            yield "nesterov", "needs momentum > 0"

    def __call__(self, parameters: ParamsT, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters, lr=lr, momentum=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay
        )
