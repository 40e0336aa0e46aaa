"""More surrogates, u = h - v_threshold. Not all of them are even in u, and not every g goes from 0 to 1.

Source, unless the class names another: SpikingJelly's list of surrogates, whose formulas and defaults these are.
Parity, of all that have a counterpart there: tests/peers/test_zoo.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from spikecore.dynamics import abs, clamp, cos, exp, log, min, round, sigmoid, sign, sin, tanh, where
from spikecore.errors import DynamicsError, OptionError
from spikecore.interfaces import Range, SurrogateCapabilities
from spikecore.nn import Surrogate

Positive = Annotated[float, Range(gt=0.0, lt=math.inf)]
NotNegative = Annotated[float, Range(ge=0.0, lt=math.inf)]


class NonzeroSignLogAbs(Surrogate):
    """g(u) = sgn(u) ln(α |u| + 1);  g'(u) = 1 / (1/α + |u|), which is nowhere zero. g is not bounded.

    Example:
        >>> import torch
        >>> u = torch.tensor([-1.0, 0.0, 3.0], requires_grad=True)
        >>> torch.autograd.grad(NonzeroSignLogAbs()(u).sum(), u)[0].tolist()
        [0.5, 1.0, 0.25]
    """

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        return 1 / (1 / params.alpha + abs(u))

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        return sign(u) * log(params.alpha * abs(u) + 1)


class PiecewiseLeakyReLU(Surrogate):
    """g'(u) = 1 / (2 w) for |u| < w, else c;  g is a ramp through 1/2 there, continued with slope c.

    Example:
        >>> import torch
        >>> u = torch.tensor([-3.0, 0.0], requires_grad=True)
        >>> torch.autograd.grad(PiecewiseLeakyReLU(w=0.5, c=0.25)(u).sum(), u)[0].tolist()
        [0.25, 1.0]
    """

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            w: half the width of the steep part.
            c: slope outside of it.
            spiking: False uses the primitive in the forward pass too.
        """

        w: Positive = 1.0
        c: NotNegative = 0.01
        spiking: bool = True

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        return where(abs(u) < params.w, 1 / (2 * params.w), params.c, like=u)

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        inside = clamp(u, -params.w, params.w)
        return inside / (2 * params.w) + 0.5 + params.c * (u - inside)


class SquarewaveFourierSeries(Surrogate):
    """The Fourier series of a square wave, cut off after `num_terms` terms; periodic in u.

    g(u) = 1/2 + 2/π Σ sin(ω_i u) / (2i - 1);  g'(u) = 4/P Σ cos(ω_i u);  ω_i = 2π (2i - 1) / P,  i = 1 … num_terms

    P is the period. Beyond |u| = 60000, about what half precision holds, the waves stand still. SpikingJelly's `n`
    counts one more: num_terms = n - 1.

    Example:
        >>> import torch
        >>> u = torch.tensor([0.0, 4.0], requires_grad=True)
        >>> torch.autograd.grad(SquarewaveFourierSeries(num_terms=2)(u).sum(), u)[0].tolist()
        [1.0, -1.0]
    """

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            num_terms: terms of the series.
            period: of the wave, in units of u.
            spiking: False uses the primitive in the forward pass too.
        """

        num_terms: Annotated[int, Range(ge=1)] = 1
        period: Positive = 8.0
        spiking: bool = True

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        total: Any = 0.0
        u = clamp(u, -6e4, 6e4)
        for i in range(params.num_terms):
            total = total + cos(2 * math.pi * (2 * i + 1) / params.period * u)
        return 4 / params.period * total

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        total: Any = 0.0
        u = clamp(u, -6e4, 6e4)
        for i in range(params.num_terms):
            total = total + sin(2 * math.pi * (2 * i + 1) / params.period * u) / (2 * i + 1)
        return 0.5 + 2 / math.pi * total


class S2NN(Surrogate):
    """A sigmoid below the threshold, a logarithm above.

    g(u) = σ(α u) for u < 0, else β ln(u + 1) + 1/2
    g'(u) = α σ(α u) (1 - σ(α u)) for u < 0, else β / (u + 1)

    Source: Suetake et al., S2NN: Single-step spiking neural networks (2022).

    Example:
        >>> import torch
        >>> u = torch.tensor([0.0, 3.0], requires_grad=True)
        >>> torch.autograd.grad(S2NN()(u).sum(), u)[0].tolist()
        [1.0, 0.25]
    """

    @dataclass(frozen=True)
    class Config(Surrogate.Config):
        """
        Args:
            beta: slope just above the threshold.
        """

        alpha: Positive = 4.0
        beta: Positive = 1.0

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        s = sigmoid(params.alpha * u)
        return where(u < 0, params.alpha * s * (1 - s), params.beta / (abs(u) + 1))

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        return where(u < 0, sigmoid(params.alpha * u), params.beta * log(abs(u) + 1) + 0.5)


class QPseudoSpike(Surrogate):
    """g'(u) = q^-α with q = 1 + 2 |u| / (α - 1);  g(u) = q^(1-α) / 2 for u < 0, else 1 - q^(1-α) / 2.

    Heavy tails, which α > 1 sets.

    Source: Herranz-Celotti and Rouat, Surrogate gradients design (2022).

    Example:
        >>> import torch
        >>> u = torch.tensor([0.0, 0.5], requires_grad=True)
        >>> torch.autograd.grad(QPseudoSpike()(u).sum(), u)[0].tolist()
        [1.0, 0.25]
    """

    @dataclass(frozen=True)
    class Config(Surrogate.Config):
        """
        Args:
            alpha: power of the tail, above 1.
        """

        alpha: Annotated[float, Range(gt=1.0, lt=math.inf)] = 2.0

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        return exp(-params.alpha * log(1 + 2 / (params.alpha - 1) * abs(u)))

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        tail = 0.5 * exp((1 - params.alpha) * log(1 + 2 / (params.alpha - 1) * abs(u)))
        return where(u < 0, tail, 1 - tail)


class LeakyKReLU(Surrogate):
    """g'(u) = k for u >= 0, else leak;  g(u) = k u or leak u.

    Example:
        >>> import torch
        >>> u = torch.tensor([-1.0, 0.0], requires_grad=True)
        >>> torch.autograd.grad(LeakyKReLU(leak=0.25, k=2.0)(u).sum(), u)[0].tolist()
        [0.25, 2.0]
    """

    capabilities: ClassVar[SurrogateCapabilities] = SurrogateCapabilities(nonzero=False)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            leak: slope below the threshold; at its default, 0, nothing passes there.
            k: slope above it.
            spiking: False uses the primitive in the forward pass too.
        """

        leak: NotNegative = 0.0
        k: Positive = 1.0
        spiking: bool = True

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        return where(u >= 0, params.k, params.leak, like=u)

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        return where(u >= 0, params.k * u, params.leak * u)


class FakeNumericalGradient(Surrogate):
    """g'(u) = min(1 / |u|, α): the slope of the chord from Θ's step, with a limit; no primitive.

    Example:
        >>> import torch
        >>> u = torch.tensor([0.0, -8.0], requires_grad=True)
        >>> torch.autograd.grad(FakeNumericalGradient(alpha=0.5)(u).sum(), u)[0].tolist()
        [0.5, 0.125]
    """

    @dataclass(frozen=True)
    class Config(Surrogate.Config):
        """
        Args:
            alpha: largest slope.
        """

        alpha: Positive = 0.3

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        return min(1 / abs(u), params.alpha)


class LogTailedReLU(Surrogate):
    """g'(u) = leak for u <= 0, 1 up to 1, then 1 / u;  g(u) = leak u, u, ln u + 1.

    Source: Cai et al., Deep learning with low precision by half-wave Gaussian quantization (CVPR 2017).

    Example:
        >>> import torch
        >>> u = torch.tensor([-1.0, 0.5, 4.0], requires_grad=True)
        >>> torch.autograd.grad(LogTailedReLU(leak=0.25)(u).sum(), u)[0].tolist()
        [0.25, 1.0, 0.25]
    """

    capabilities: ClassVar[SurrogateCapabilities] = SurrogateCapabilities(nonzero=False)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            leak: slope below the threshold; at its default, 0, nothing passes there.
            spiking: False uses the primitive in the forward pass too.
        """

        leak: NotNegative = 0.0
        spiking: bool = True

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        return where(u <= 0, params.leak, where(u <= 1, 1.0, 1 / u))

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        return where(u <= 0, params.leak * u, where(u <= 1, u, log(where(u <= 1, 1.0, u)) + 1))


class DSpike(Surrogate):
    """g(u) = tanh(α u) / (2 tanh(α/2)) + 1/2 and g'(u) its derivative for |u| <= 1/2; outside g' = 0, g is 0 or 1.

    Source: Li et al., Differentiable spike: Rethinking gradient-descent for training spiking neural networks (NeurIPS
    2021).

    Example:
        >>> import torch
        >>> u = torch.tensor([-0.6, 0.0], requires_grad=True)
        >>> [f"{g:.3f}" for g in torch.autograd.grad(DSpike(alpha=2.0)(u).sum(), u)[0].tolist()]
        ['0.000', '1.313']
    """

    @dataclass(frozen=True)
    class Config(Surrogate.Config):
        """
        Args:
            alpha: temperature: small is a ramp, large is a step.
        """

        alpha: Positive = 3.0

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        t = tanh(params.alpha * u)
        return where(abs(u) <= 0.5, params.alpha / (2 * math.tanh(params.alpha / 2)) * (1 - t * t), 0.0)

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        return tanh(params.alpha * clamp(u, -0.5, 0.5)) / (2 * math.tanh(params.alpha / 2)) + 0.5


class DeterministicPass(Surrogate):
    """The gradient passes as it is: g'(u) = 1, g(u) = u.

    Example:
        >>> import torch
        >>> u = torch.tensor([-3.0, 3.0], requires_grad=True)
        >>> s = DeterministicPass()(u)
        >>> s.tolist(), torch.autograd.grad(s.sum(), u)[0].tolist()
        ([0.0, 1.0], [1.0, 1.0])
    """

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            spiking: False uses the primitive in the forward pass too.
        """

        spiking: bool = True

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        return where(u >= 0, 1.0, 1.0, like=u)

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        return u * 1.0  # a tensor of its own: autograd refuses an output that is the input


class PoissonPass(DeterministicPass):
    """A spike with probability u (0 below 0, 1 above 1): forward Bernoulli(u), g'(u) = 1.

    It draws from torch's generator of the device; equal seeds give equal spikes. A graph of the neuron language holds
    no random numbers, so a neuron with it runs on the reference backend only, and `explain` says so.

    Raises:
        DynamicsError: its neuron is traced.

    Example:
        >>> import torch
        >>> PoissonPass()(torch.tensor([0.0, 1.0, -1.0, 2.0])).tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    capabilities: ClassVar[SurrogateCapabilities] = SurrogateCapabilities(heaviside=False, stochastic=True)

    @staticmethod
    def forward(u: Any, params: Any) -> Any:
        if not isinstance(u, Tensor):
            raise DynamicsError(
                "poisson_pass draws random numbers, which the neuron language does not have: run this neuron with "
                "backend='torch' (or 'auto', which chooses it), or take another surrogate"
            )
        return torch.rand_like(u) < u


class MultiLevelSpikeCount(Surrogate):
    """Integer spikes: forward round(u), limited to [0, D], halves to even; g'(u) = 1 inside the window, else 0.

    D is `max_spike_count`; the window is [0, D] if not given. g(u) = u, limited to [0, D]. NaN does not spike.

    Source: Luo et al., Integer-valued training and spike-driven inference spiking neural network (ECCV 2024).

    Raises:
        OptionError: the window is not a pair (low, high) with low < high.

    Example:
        >>> import torch
        >>> MultiLevelSpikeCount(max_spike_count=3)(torch.tensor([-1.0, 0.6, 2.5, 7.0])).tolist()
        [0.0, 1.0, 2.0, 3.0]
    """

    capabilities: ClassVar[SurrogateCapabilities] = SurrogateCapabilities(heaviside=False, nonzero=False)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            max_spike_count: D.
            grad_window: (low, high) where the gradient passes; empty for (0, D).
            spiking: False uses the primitive in the forward pass too.
        """

        max_spike_count: Annotated[int, Range(ge=1)] = 4
        grad_window: tuple[float, ...] = ()
        spiking: bool = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        window = self.config.grad_window
        if window and not (len(window) == 2 and window[0] < window[1]):
            raise OptionError(
                f"MultiLevelSpikeCount: option 'grad_window' must be (low, high) with low < high, or empty for "
                f"(0, max_spike_count); got {window!r}"
            )

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        low, high = params.grad_window or (0.0, float(params.max_spike_count))
        return where((u >= low) & (u <= high), 1.0, 0.0, like=u)

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        return clamp(u, 0.0, float(params.max_spike_count))

    @staticmethod
    def forward(u: Any, params: Any) -> Any:
        return where(u > 0.5, round(clamp(u, 0.0, float(params.max_spike_count))), 0.0)
