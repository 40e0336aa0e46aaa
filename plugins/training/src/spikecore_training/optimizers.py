"""The other optimizers of `torch.optim`, under their own names and with torch's defaults.

Core has `adam`, `adamw` and `sgd`. `LBFGS` evaluates the loss several times a step, `SparseAdam` takes sparse gradients
only and `Muon` matrices only, so none of the three fits a net trained by one loop.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch.optim.optimizer import ParamsT

from spikecore.interfaces import Range
from spikecore.trainers import Optimizer

NotNegative = Annotated[float, Range(ge=0.0, lt=math.inf)]
Positive = Annotated[float, Range(gt=0.0, lt=math.inf)]
Share = Annotated[float, Range(ge=0.0, lt=1.0)]


@dataclass(frozen=True)
class TorchOptimizer(Optimizer):
    """Base: the fields are passed to the class of torch by name."""

    torch_class: ClassVar[type[torch.optim.Optimizer]]

    def __call__(self, parameters: ParamsT, lr: float) -> torch.optim.Optimizer:
        """See `spikecore.trainers.Optimizer`."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return self.torch_class(parameters, lr=lr, **options)


def _pair_problems(name: str, pair: tuple[float, ...]) -> Iterable[tuple[str, str]]:
    if len(pair) != 2 or not all(0 <= number < 1 for number in pair):
        yield name, f"must be two numbers from 0 to below 1, got {list(pair)}"


@dataclass(frozen=True)
class Adadelta(TorchOptimizer):
    """`torch.optim.Adadelta`.

    Args:
        rho: decay of the mean of the squared gradient.
        eps: added to the root, against division by zero.
        weight_decay: times the weights, added to the gradient.
    """

    torch_class = torch.optim.Adadelta
    rho: Share = 0.9
    eps: Positive = 1e-6
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True)
class Adafactor(TorchOptimizer):
    """`torch.optim.Adafactor`.

    Args:
        beta2_decay: exponent of the decay of the mean of the squared gradient, below 0.
        d: the update is clipped to this root mean square.
        weight_decay: times the learning rate, the share that each step takes from the weights.
    """

    torch_class = torch.optim.Adafactor
    can_shard = False
    beta2_decay: Annotated[float, Range(le=0.0)] = -0.8
    d: Annotated[float, Range(ge=1.0, lt=math.inf)] = 1.0
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True)
class Adagrad(TorchOptimizer):
    """`torch.optim.Adagrad`.

    Args:
        lr_decay: the learning rate is divided by 1 + `lr_decay` times the number of steps.
        initial_accumulator_value: the sum of squared gradients at the start.
        eps: added to the root, against division by zero.
        weight_decay: times the weights, added to the gradient.
    """

    torch_class = torch.optim.Adagrad
    lr_decay: NotNegative = 0.0
    initial_accumulator_value: NotNegative = 0.0
    eps: Positive = 1e-10
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True)
class Adamax(TorchOptimizer):
    """`torch.optim.Adamax`.

    Args:
        betas: decay of the mean of the gradient, and of its largest size.
        eps: added against division by zero.
        weight_decay: times the weights, added to the gradient.
    """

    torch_class = torch.optim.Adamax
    betas: tuple[float, ...] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        """Two betas."""
        return _pair_problems("betas", config.betas)


@dataclass(frozen=True)
class ASGD(TorchOptimizer):
    """`torch.optim.ASGD`.

    Args:
        lambd: decay of the weights and of the learning rate.
        alpha: power of the learning rate's decay.
        t0: step at which averaging begins.
        weight_decay: times the weights, added to the gradient.
    """

    torch_class = torch.optim.ASGD
    lambd: NotNegative = 1e-4
    alpha: NotNegative = 0.75
    t0: NotNegative = 1e6
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True)
class NAdam(TorchOptimizer):
    """`torch.optim.NAdam`.

    Args:
        betas: decay of the means of the gradient and of its square.
        eps: added to the root, against division by zero.
        weight_decay: times the weights, added to the gradient.
        momentum_decay: how fast the momentum grows.
        decoupled_weight_decay: weights decay by themselves, as in AdamW.
    """

    torch_class = torch.optim.NAdam
    betas: tuple[float, ...] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0
    momentum_decay: NotNegative = 0.004
    decoupled_weight_decay: bool = False

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        """Two betas."""
        return _pair_problems("betas", config.betas)


@dataclass(frozen=True)
class RAdam(TorchOptimizer):
    """`torch.optim.RAdam`.

    Args:
        betas: decay of the means of the gradient and of its square.
        eps: added to the root, against division by zero.
        weight_decay: times the weights, added to the gradient.
        decoupled_weight_decay: weights decay by themselves, as in AdamW.
    """

    torch_class = torch.optim.RAdam
    betas: tuple[float, ...] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0
    decoupled_weight_decay: bool = False

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        """Two betas."""
        return _pair_problems("betas", config.betas)


@dataclass(frozen=True)
class RMSprop(TorchOptimizer):
    """`torch.optim.RMSprop`.

    Args:
        alpha: decay of the mean of the squared gradient.
        eps: added to the root, against division by zero.
        weight_decay: times the weights, added to the gradient.
        momentum: share of the last step that is repeated.
        centered: the gradient is divided by its deviation.
    """

    torch_class = torch.optim.RMSprop
    alpha: Share = 0.99
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0
    momentum: Share = 0.0
    centered: bool = False


@dataclass(frozen=True)
class Rprop(TorchOptimizer):
    """`torch.optim.Rprop`, for batches that hold the whole training split.

    Args:
        etas: factors of the step after a change of the gradient's sign, below 1, and without one, above 1.
        step_sizes: smallest and largest step.
    """

    torch_class = torch.optim.Rprop
    can_shard = False
    etas: tuple[float, ...] = (0.5, 1.2)
    step_sizes: tuple[float, ...] = (1e-6, 50.0)

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        """A factor below 1 and one above; two rising sizes."""
        if len(config.etas) != 2 or not 0 < config.etas[0] < 1 < config.etas[1]:
            yield "etas", f"must be a number between 0 and 1, and one above 1, got {list(config.etas)}"
        if len(config.step_sizes) != 2 or not 0 < config.step_sizes[0] <= config.step_sizes[1]:
            yield "step_sizes", f"must be two numbers above 0, the smaller first, got {list(config.step_sizes)}"
