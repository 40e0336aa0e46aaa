"""Batch norms that know of threshold or time, and a norm across channels.

threshold-dependent   y = BN(x) with γ at first α v_threshold, over time and batch
temporal-effective    y[t] = p[t] BN(x)[t]                     p learned, 1 at first
through time          y[t] = BN_t(x[t])                        statistics and γ of each step by itself, no β
NeuNorm               a[t] = k a[t-1] + (1 - k) / C² Σ_c x[t, c];   y[t] = x[t] - w a[t]
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from spikecore import nn
from spikecore.errors import OptionError, ShapeError
from spikecore_layer_zoo.steps import CountsSteps

_NORMS: dict[int, type[torch.nn.modules.batchnorm._BatchNorm]] = {
    1: torch.nn.BatchNorm1d,
    2: torch.nn.BatchNorm2d,
    3: torch.nn.BatchNorm3d,
}


class _ThresholdDependent:
    """Mixin before a batch norm of spikecore.nn.

    Args:
        alpha: α, in the paper 1; 1/√n where n of them are added up.
        v_threshold: of the neuron behind it.
        args, kwargs: of the torch layer.
    """

    def __init__(self, alpha: float, v_threshold: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.weight is None:  # type: ignore[attr-defined]
            raise OptionError(f"{type(self).__name__} scales its weight by alpha * v_threshold: it needs affine=True")
        torch.nn.init.constant_(self.weight, alpha * v_threshold)  # type: ignore[attr-defined]


class ThresholdDependentBatchNorm1d(_ThresholdDependent, nn.BatchNorm1d):
    """`BatchNorm1d(num_features, …)` over `[T, B, C]` or `[T, B, C, L]`, γ at first α v_threshold.

    Source: Zheng et al., Going Deeper With Directly-Trained Larger Spiking Neural Networks (AAAI 2021), eq. 7-8.
    """


class ThresholdDependentBatchNorm2d(_ThresholdDependent, nn.BatchNorm2d):
    """`BatchNorm2d(num_features, …)` over `[T, B, C, H, W]`, γ at first α v_threshold; source as for 1d."""


class ThresholdDependentBatchNorm3d(_ThresholdDependent, nn.BatchNorm3d):
    """`BatchNorm3d(num_features, …)` over `[T, B, C, D, H, W]`, γ at first α v_threshold; source as for 1d."""


class _TemporalEffective(CountsSteps):
    """y[t] = p[t] BN(x)[t].

    Args:
        num_steps: T; the layer takes sequences of this length only.
        num_features: C.
        eps, momentum, affine: of the batch norm.
        step_mode: `multi` or `single`.

    Attributes:
        norm: the batch norm.
        scale: p, `[T]`.

    Raises:
        ShapeError: another number of steps or channels, or another rank.

    Source: Duan et al., Temporal Effective Batch Normalization in Spiking Neural Networks (NeurIPS 2022), eq. 9.
    """

    num_spatial: ClassVar[int]

    def __init__(
        self,
        num_steps: int,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        step_mode: str = "multi",
    ) -> None:
        super().__init__(num_steps, step_mode)
        self.num_features = num_features
        self.norm = _NORMS[self.num_spatial](num_features, eps, momentum, affine)
        self.scale = torch.nn.Parameter(torch.ones(num_steps))

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, ...]` or `[B, C, ...]` by `step_mode`; statistics over time and batch, or over the batch."""
        steps = _steps(self, x)
        if self.step_mode == "single":
            out: Tensor = self.norm(x)
            return out * self.scale[steps.start]
        scale = self.scale[steps.start : steps.stop].reshape(-1, *[1] * (x.dim() - 1))
        return self.norm(x.flatten(0, 1)).reshape(x.shape) * scale


class TemporalEffectiveBatchNorm1d(_TemporalEffective):
    __doc__ = _TemporalEffective.__doc__
    num_spatial = 1


class TemporalEffectiveBatchNorm2d(_TemporalEffective):
    __doc__ = _TemporalEffective.__doc__
    num_spatial = 2


class TemporalEffectiveBatchNorm3d(_TemporalEffective):
    __doc__ = _TemporalEffective.__doc__
    num_spatial = 3


class _ThroughTime(CountsSteps):
    """y[t] = BN_t(x[t]): one batch norm for each step, with γ and without β.

    Args:
        num_steps: T; the layer takes sequences of this length only.
        num_features: C.
        eps, momentum: of each batch norm.
        step_mode: `multi` or `single`.

    Attributes:
        norms: the T batch norms.

    Raises:
        ShapeError: another number of steps or channels, or another rank.

    Source: Kim and Panda, Revisiting Batch Normalization for Training Low-Latency Deep Spiking Neural Networks From
    Scratch (Frontiers in Neuroscience 2021), eq. 7.
    """

    num_spatial: ClassVar[int]

    def __init__(
        self, num_steps: int, num_features: int, eps: float = 1e-5, momentum: float = 0.1, step_mode: str = "multi"
    ) -> None:
        super().__init__(num_steps, step_mode)
        self.num_features = num_features
        self.norms = torch.nn.ModuleList(
            _NORMS[self.num_spatial](num_features, eps, momentum) for _ in range(num_steps)
        )
        for norm in self.norms:
            norm.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, ...]` or `[B, C, ...]` by `step_mode`."""
        steps = _steps(self, x)
        if self.step_mode == "single":
            out: Tensor = self.norms[steps.start](x)
            return out
        if not steps:
            return x
        return nn.stack_steps([self.norms[t](step) for t, step in zip(steps, nn.unbind_steps(x), strict=True)])


class BatchNormThroughTime1d(_ThroughTime):
    __doc__ = _ThroughTime.__doc__
    num_spatial = 1


class BatchNormThroughTime2d(_ThroughTime):
    __doc__ = _ThroughTime.__doc__
    num_spatial = 2


class BatchNormThroughTime3d(_ThroughTime):
    __doc__ = _ThroughTime.__doc__
    num_spatial = 3


def _steps(layer: _TemporalEffective | _ThroughTime, x: Tensor) -> range:
    lead = 1 + (layer.step_mode == "multi")
    allowed = (lead + 1, lead + 2) if layer.num_spatial == 1 else (lead + 1 + layer.num_spatial,)
    if x.dim() not in allowed:
        raise ShapeError(
            f"{type(layer).__name__} in step_mode {layer.step_mode!r} takes {' or '.join(map(str, allowed))} axes, "
            f"got {tuple(x.shape)}"
        )
    if x.shape[lead] != layer.num_features:
        raise ShapeError(
            f"{type(layer).__name__} was made for num_features={layer.num_features} channels along axis {lead}, "
            f"got {tuple(x.shape)}"
        )
    return layer.steps_of(x)


class NeuNorm(nn.Stateful):
    """a[t] = k a[t-1] + (1 - k) / C² Σ_c x[t, c];   y[t] = x[t] - w a[t];   a[-1] = 0.

    An auxiliary neuron sums the spikes of all channels at a place and inhibits them, by weights that are learned.

    Args:
        channels, height, width: of the input, `[T, B, C, H, W]`.
        k: share of a that is left after a step.
        shared_across_channels: one weight for each place, rather than for each place and channel.
        step_mode: `multi` or `single`.

    Raises:
        OptionError: k is outside 0 .. 1.
        ShapeError: the input's shape is another one.

    Source: Wu et al., Direct Training for Spiking Neural Networks: Faster, Larger, Better (AAAI 2019), eq. 10-11.
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        k: float = 0.9,
        shared_across_channels: bool = False,
        step_mode: str = "multi",
    ) -> None:
        super().__init__()
        if not 0.0 <= k <= 1.0:
            raise OptionError(f"NeuNorm: k must be >= 0 and <= 1, got {k!r}")
        nn.set_step_mode(self, step_mode)
        self.shape, self.k = (channels, height, width), k
        self.weight = torch.nn.Parameter(torch.empty(1 if shared_across_channels else channels, height, width))
        torch.nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """`a` `[B, 1, H, W]`, 0."""
        return {"a": torch.zeros((x.shape[0], 1, *x.shape[2:]), dtype=x.dtype, device=x.device)}

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` or `[B, C, H, W]` by `step_mode` → the same shape."""
        multi = self.step_mode == "multi"
        if x.dim() != 4 + multi or tuple(x.shape[-3:]) != self.shape:
            lead = "T, B, " if multi else "B, "
            raise ShapeError(
                f"NeuNorm takes [{lead}{', '.join(map(str, self.shape))}] in step_mode {self.step_mode!r}, "
                f"got {tuple(x.shape)}"
            )
        sequence = x if multi else x.unsqueeze(0)
        a = self.state_for(sequence.new_empty(()).expand(sequence.shape[1:]))["a"]
        outs = []
        for current in nn.unbind_steps(sequence):
            a = self.k * a + (1 - self.k) / self.shape[0] ** 2 * current.sum(1, keepdim=True)
            outs.append(current - self.weight * a)
        (out,) = self.keep({"a": a}, nn.stack_steps(outs) if outs else x)
        return out if multi else out[0]
