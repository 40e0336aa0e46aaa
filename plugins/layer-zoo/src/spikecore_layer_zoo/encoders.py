"""Encoders: periodic, weighted phase, population, Gaussian tuning, rank order.

All are deterministic but `population` with `mode="random"`, which draws from the generator that it is given.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from spikecore import nn
from spikecore.errors import InputError, OptionError, ShapeError
from spikecore.interfaces import EncoderCapabilities, Range


class Periodic(nn.Encoder):
    """out[t] = x[t mod P]: a pattern `[P, B, ...]` again and again, for `num_steps` steps.

    Gradients: pass through, summed over the repetitions.

    Example:
        >>> Periodic(num_steps=5, sequences=True)(torch.tensor([[1.0], [0.0]])).flatten().tolist()
        [1.0, 0.0, 1.0, 0.0, 1.0]
    """

    capabilities: EncoderCapabilities = EncoderCapabilities(
        spiking=False, input_range=None, takes_sequences=True, keeps_length=False
    )

    @dataclass(frozen=True)
    class Config(nn.Encoder.Config):
        """
        Args:
            sequences: the input is a pattern `[P, B, ...]`; otherwise a batch, a pattern of one step.
        """

        sequences: bool = False

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        pattern = x if self.config.sequences else x.unsqueeze(0)
        if not len(pattern):
            raise ShapeError(f"Periodic takes a pattern [P, B, ...] with P >= 1, got {tuple(x.shape)}")
        return pattern[torch.arange(self.config.num_steps, device=x.device) % len(pattern)]


class WeightedPhase(nn.Encoder):
    """out[t] = bit k of x, k = t mod K: a spike in phase k weighs 2^-(k + 1).

    x = Σ_k 2^-(k + 1) bit_k, so x lies in 0 .. 1 - 2^-K; what is smaller than 2^-K is cut off. Gradients: none.

    Source: Kim et al., Deep neural networks with weighted spikes (Neurocomputing 2018).

    Example:
        >>> WeightedPhase(num_steps=3, num_phases=3)(torch.tensor([0.625])).flatten().tolist()
        [1.0, 0.0, 1.0]
    """

    capabilities: EncoderCapabilities = EncoderCapabilities(decodable=True, input_range=None)

    @dataclass(frozen=True)
    class Config(nn.Encoder.Config):
        """
        Args:
            num_steps: T; the phases are gone through again and again.
            num_phases: K, bits of the value.
            saturate: values between 1 - 2^-K and 1 are written as 1 - 2^-K rather than refused.
        """

        num_steps: Annotated[int, Range(ge=1)] = 8
        num_phases: Annotated[int, Range(ge=1, le=24)] = 8
        saturate: bool = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.capabilities = dataclasses.replace(
            self.capabilities, input_range=(0.0, 1.0 if self.config.saturate else self.largest)
        )

    @property
    def largest(self) -> float:
        """1 - 2^-K."""
        return float(1 - 2.0**-self.config.num_phases)

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        bits = self.config.num_phases
        wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        whole = torch.floor(wide.clamp(max=self.largest) * 2**bits).to(torch.int64)
        phases = torch.arange(self.config.num_steps, device=x.device) % bits
        shifts = (bits - 1 - phases).reshape(-1, *[1] * x.dim())
        return ((whole >> shifts) & 1).to(x.dtype)

    def decode(self, spikes: Tensor) -> Tensor:
        """Σ_k 2^-(k + 1) out[k] over the first K steps.

        Raises:
            ShapeError: fewer than K steps, so that bits are missing.
        """
        bits = self.config.num_phases
        if spikes.dim() < 2 or len(spikes) < bits:
            raise ShapeError(f"WeightedPhase.decode takes at least {bits} steps [T, B, ...], got {tuple(spikes.shape)}")
        weights = 2.0 ** -torch.arange(1, bits + 1, device=spikes.device, dtype=torch.float64)
        return torch.tensordot(weights.to(spikes.dtype), spikes[:bits], 1)


def _check_bounds(name: str, low: float, high: float) -> None:
    if not -math.inf < low < high < math.inf:
        raise OptionError(f"{name}: low must be below high, both finite, got {low} and {high}")


class _StraightThrough(torch.autograd.Function):
    """The spikes forward; the gradient of the activations backward."""

    @staticmethod
    def forward(ctx: Any, activations: Tensor, spikes: Tensor) -> Tensor:
        return spikes.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class Population(nn.Encoder):
    """Each value is seen by a population with Gaussian receptive fields.

    A_i = exp(-((x - mu_i) / sigma_i)² / 2),   mu evenly over low .. high at first; mu and sigma are learned

    raw             out[t] = A
    deterministic   an integrator with soft reset, fed A at every step, spikes at 0.999
    random          out[t] = 1 with probability A

    `[B, ..., N]` → `[T, B, ..., N P]`, population by population. Gradients: to x, mu and sigma, through spikes as
    if out were A at every step.

    Source: Tang et al., Deep Reinforcement Learning with Population-Coded Spiking Neural Network (CoRL 2020), 3.1.
    """

    capabilities: EncoderCapabilities = EncoderCapabilities(spiking=False, input_range=None, keeps_shape=False)

    @dataclass(frozen=True)
    class Config(nn.Encoder.Config):
        """
        Args:
            size: P, neurons of each population.
            num_inputs: N, populations with fields of their own; 1: the same fields for every value.
            low: centre of the first field; smaller values are refused.
            high: centre of the last field; larger values are refused.
            std: sigma of every field at first.
            mode: how activations become a sequence.
        """

        size: Annotated[int, Range(ge=2)] = 10
        num_inputs: Annotated[int, Range(ge=1)] = 1
        low: float = -3.0
        high: float = 3.0
        std: Annotated[float, Range(gt=0.0, lt=math.inf)] = math.sqrt(0.15)
        mode: Literal["raw", "deterministic", "random"] = "raw"

    v_threshold: ClassVar[float] = 0.999

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        config = self.config
        _check_bounds("Population", config.low, config.high)
        self.capabilities = dataclasses.replace(
            self.capabilities,
            spiking=config.mode != "raw",
            stochastic=config.mode == "random",
            input_range=(config.low, config.high),
        )
        centres = torch.linspace(config.low, config.high, config.size).repeat(config.num_inputs, 1)
        self.mu = torch.nn.Parameter(centres)
        self.sigma = torch.nn.Parameter(torch.full_like(centres, config.std))

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        config = self.config
        if x.dim() < 2 or config.num_inputs not in (1, x.shape[-1]):
            wanted = "N" if config.num_inputs == 1 else config.num_inputs
            raise ShapeError(
                f"Population with num_inputs={config.num_inputs} takes [B, ..., {wanted}], got {tuple(x.shape)}"
            )
        fields = torch.exp(-0.5 * ((x.unsqueeze(-1) - self.mu.to(x.dtype)) / self.sigma.to(x.dtype)) ** 2)
        activations = fields.flatten(-2).expand(config.num_steps, *x.shape[:-1], -1)
        if config.mode == "raw":
            return activations
        spikes = self._spikes(activations.detach(), generator)
        out: Tensor = _StraightThrough.apply(activations, spikes)  # type: ignore[no-untyped-call]
        return out

    def _spikes(self, activations: Tensor, generator: Generator | None) -> Tensor:
        if self.config.mode == "random":
            device = activations.device if generator is None else generator.device
            drawn = torch.rand(activations.shape, generator=generator, device=device, dtype=torch.float32)
            return (drawn.to(activations.device) < activations).to(activations.dtype)
        v = torch.zeros_like(activations[0], dtype=torch.promote_types(activations.dtype, torch.float32))
        out = []
        for step in activations.unbind(0):
            v = v + step
            spikes = (v >= self.v_threshold).to(v.dtype)
            v = v - spikes * self.v_threshold
            out.append(spikes.to(activations.dtype))
        return torch.stack(out)


class GaussianTuning(nn.Encoder):
    """Each value is seen by M Gaussian fields; the better it fits, the earlier the field's one spike.

    mu_i = low + (2 i - 3) / 2 · (high - low) / (M - 2),  i = 1 .. M;   sigma = (high - low) / (1.5 (M - 2))
    y = exp(-(x - mu)² / (2 sigma²));   spike at t = round(T (1 - y)), none when t >= T

    `[B, ..., N]` → `[T, B, ..., N M]`. Gradients: none.

    Source: Bohte, Kok and La Poutré, Error-backpropagation in temporally encoded networks (Neurocomputing 2002), 4.
    """

    capabilities: EncoderCapabilities = EncoderCapabilities(input_range=None, keeps_shape=False)

    @dataclass(frozen=True)
    class Config(nn.Encoder.Config):
        """
        Args:
            num_steps: T.
            size: M, fields of each value.
            low: smallest value that is accepted.
            high: largest value that is accepted.
        """

        num_steps: Annotated[int, Range(ge=1)] = 50
        size: Annotated[int, Range(ge=3)] = 8
        low: float = 0.0
        high: float = 1.0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        _check_bounds("GaussianTuning", self.config.low, self.config.high)
        self.capabilities = dataclasses.replace(self.capabilities, input_range=(self.config.low, self.config.high))

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        config = self.config
        if x.dim() < 2:
            raise ShapeError(f"GaussianTuning takes [B, ..., N], got {tuple(x.shape)}: add an axis with unsqueeze(-1)")
        wide = x.detach().to(torch.promote_types(x.dtype, torch.float32)).unsqueeze(-1)
        spread = config.high - config.low
        i = torch.arange(1, config.size + 1, device=x.device, dtype=wide.dtype)
        mu = config.low + (2 * i - 3) / 2 * spread / (config.size - 2)
        sigma = spread / (1.5 * (config.size - 2))
        y = torch.exp(-((wide - mu) ** 2) / (2 * sigma**2)).flatten(-2)
        time = (config.num_steps * (1 - y)).round()
        steps = torch.arange(config.num_steps, device=x.device).reshape(-1, *[1] * x.dim())
        spikes: Tensor = steps == time
        return spikes.to(x.dtype)


class RankOrder(nn.Encoder):
    """One spike per value, in the order of the values: the largest first.

    Of N values in a sample, the one of rank r (0 for the largest; equal ones by position) spikes at t = ⌊r T / N⌋; with
    T >= N no two spike together. `[B, ...]` → `[T, B, ...]`. Gradients: none.

    Source: Thorpe and Gautrais, Rank order coding (Computational Neuroscience: Trends in Research 1998).

    Example:
        >>> RankOrder(num_steps=3)(torch.tensor([[0.1, 0.9, 0.5]]))[:, 0].argmax(0).tolist()
        [2, 0, 1]
    """

    capabilities: EncoderCapabilities = EncoderCapabilities(input_range=None)

    @dataclass(frozen=True)
    class Config(nn.Encoder.Config):
        """
        Args:
            num_steps: T.
        """

        num_steps: Annotated[int, Range(ge=1)] = 16

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        if not bool(x.detach().isfinite().all()):
            raise InputError("RankOrder takes finite values, got NaN or an infinity: it could not order them")
        flat = x.detach().flatten(1) if x.dim() > 1 else x.detach().unsqueeze(1)
        order = flat.argsort(dim=1, descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(1, order, torch.arange(flat.shape[1], device=x.device).expand_as(order))
        time = (rank * self.config.num_steps // max(flat.shape[1], 1)).reshape(x.shape)
        steps = torch.arange(self.config.num_steps, device=x.device).reshape(-1, *[1] * x.dim())
        spikes: Tensor = steps == time
        return spikes.to(x.dtype)
