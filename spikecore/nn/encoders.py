"""Encoders: a batch of values → a sequence over time.

x [B, ...] → [T, B, ...],  T = num_steps

direct    out[t] = x                                        the same values every step; sequences pass through
poisson   out[t] = 1 with probability x, else 0             independent in time and place
latency   one spike, the earlier the larger x               t(x) linear or logarithmic
delta     +1 / -1 when x has moved away from what the spikes so far add up to

uint8 input is read as value / 255; values outside `capabilities.input_range` are refused. Random numbers come only from
the `generator`, on its own device, so a seed gives the same spikes wherever the input lies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Generator, Tensor, nn

from spikecore.errors import InputError, ShapeError
from spikecore.interfaces.component import Configurable, Range, make_config, refuse_positional
from spikecore.interfaces.encoder import EncoderCapabilities
from spikecore.interfaces.options import fields_of


class Encoder(Configurable, nn.Module):
    """Base of encoders: checks the input, then calls `encode`.

    Args:
        options: the fields of `Config`.
    """

    capabilities: EncoderCapabilities = EncoderCapabilities()

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            num_steps: T, the length of the sequence.
        """

        num_steps: Annotated[int, Range(ge=1)] = 4

    config: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        refuse_positional(type(self), args)
        nn.Module.__init__(self)
        self.config = make_config(type(self), options)

    @classmethod
    def idle_options(cls, config: Any) -> Iterable[tuple[str, str]]:
        if getattr(config, "sequences", False):
            yield "num_steps", "with sequences = true the length is that of the input"

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        """The encoding of checked floating-point values."""
        raise NotImplementedError("an encoder declares `encode(x, generator)`")

    def decode(self, spikes: Tensor) -> Tensor:
        """`[T, B, ...]` → `[B, ...]`: the value that the sequence stands for, where `capabilities.decodable`."""
        raise NotImplementedError(f"{type(self).__name__} has no decode: capabilities.decodable is False")

    def forward(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """`[B, ...]` → `[num_steps, B, ...]`, in the dtype of `x` (the default dtype for uint8).

        Raises:
            TypeError: `x` is neither floating point nor uint8.
            ShapeError: `x` has no batch axis.
            InputError: a value is outside `capabilities.input_range`, or NaN.
        """
        return self.encode(self._values(x), generator)

    def _values(self, x: Tensor) -> Tensor:
        name, is_sequence = type(self).__name__, getattr(self.config, "sequences", False)
        if x.dtype == torch.uint8:
            x = x.to(torch.get_default_dtype()) / 255
        if not x.is_floating_point():
            raise TypeError(
                f"{name} takes floating-point values or uint8 (read as value / 255), got {x.dtype}: call .float() on it"
            )
        if x.dim() < 1 + is_sequence:
            form = "a sequence [T, B, ...]" if is_sequence else "a batch [B, ...]"
            raise ShapeError(f"{name} takes {form}, got {tuple(x.shape)}: add the missing axis with unsqueeze(0)")
        bounds = self.capabilities.input_range
        if bounds is not None and x.numel():
            low, high = (float(value) for value in torch.aminmax(x.detach()))  # NaN comes through and is refused
            if not (bounds[0] <= low and high <= bounds[1]):
                raise InputError(
                    f"{name} takes values from {bounds[0]:g} to {bounds[1]:g}, got {low:g} to {high:g}: "
                    "rescale the input, e.g. (x - x.min()) / (x.max() - x.min())"
                )
        return x

    def _sequence(self, spikes: Tensor, num_steps: int | None = None) -> Tensor:
        if not spikes.is_floating_point():
            raise TypeError(
                f"{type(self).__name__}.decode takes floating-point values, got {spikes.dtype}: call .float() on them"
            )
        if spikes.dim() < 2 or not spikes.shape[0] or (num_steps is not None and spikes.shape[0] != num_steps):
            wanted = "T >= 1" if num_steps is None else f"T = {num_steps}"
            raise ShapeError(f"{type(self).__name__}.decode takes [T, B, ...] with {wanted}, got {tuple(spikes.shape)}")
        return spikes

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in fields_of(self.config).items())


class Direct(Encoder):
    """out[t] = x: the values themselves, every step; the first layer of the net turns them into spikes.

    The repeated sequence is a view of `x` (stride 0 over time), so it costs no memory; it must not be written to.

    Gradients: pass through, summed over time.
    Source: Rueckauer et al., Conversion of Continuous-Valued Deep Networks (Frontiers in Neuroscience 2017), 2.2.

    Example:
        >>> Direct(num_steps=3)(torch.tensor([[0.5]])).flatten().tolist()
        [0.5, 0.5, 0.5]
    """

    capabilities = EncoderCapabilities(spiking=False, rate=True, decodable=True, input_range=None, takes_sequences=True)

    @dataclass(frozen=True)
    class Config(Encoder.Config):
        """
        Args:
            sequences: inputs are sequences `[T, B, ...]` already and pass through, whatever their T.
        """

        sequences: bool = False

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        return x if self.config.sequences else x.expand(int(self.config.num_steps), *x.shape)

    def decode(self, spikes: Tensor) -> Tensor:
        """The mean over time."""
        return self._sequence(spikes).mean(0)


class Poisson(Encoder):
    """out[t] = 1 with probability x, independently: a Bernoulli process, the Poisson process in discrete time.

    x = 0 never spikes and x = 1 spikes every step. The number of spikes is binomial (T, x).

    Gradients: none.

    Example:
        >>> Poisson(num_steps=2)(torch.tensor([[0.0, 1.0]])).tolist()
        [[[0.0, 1.0]], [[0.0, 1.0]]]
    """

    capabilities = EncoderCapabilities(stochastic=True, rate=True, decodable=True)

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        device = x.device if generator is None else generator.device
        # Drawn in at least float32: half precision has too few numbers in [0, 1) for small rates.
        dtype = torch.promote_types(x.dtype, torch.float32)
        u = torch.rand((self.config.num_steps, *x.shape), generator=generator, device=device, dtype=dtype)
        return (u.to(x.device) < x.detach()).to(x.dtype)

    def decode(self, spikes: Tensor) -> Tensor:
        """The rate: the mean over time. Its standard error is sqrt(x (1 - x) / T)."""
        return self._sequence(spikes).mean(0)


class Latency(Encoder):
    """One spike per value, at t(x); x = 1 spikes at step 0 and x = 0 at the last step.

    linear:   t = round((T - 1) (1 - x))
    log:      t = round(T - 1 - ln(α x + 1)),   α = e^(T - 1) - 1

    Gradients: none.
    Parity: the formulas of SpikingJelly's latency encoder (rounding half to even).

    Example:
        >>> Latency(num_steps=3)(torch.tensor([[0.0, 0.5, 1.0]]))[:, 0].T.tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """

    capabilities = EncoderCapabilities(decodable=True)

    @dataclass(frozen=True)
    class Config(Encoder.Config):
        """
        Args:
            num_steps: T; at least two, since a single moment tells nothing.
            curve: how the moment depends on the value.
        """

        num_steps: Annotated[int, Range(ge=2)] = 4
        curve: Literal["linear", "log"] = "linear"

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        last = self.config.num_steps - 1
        wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        if self.config.curve == "linear":
            time: Tensor = last * (1 - wide)
        else:
            # ln(α x + 1) = ln(x e^(T-1) + (1 - x)), which does not overflow for large T.
            time = last - torch.logaddexp(wide.log() + last, (1 - wide).log())
        steps = torch.arange(self.config.num_steps, device=x.device).reshape(-1, *[1] * x.dim())
        return (steps == time.round()).to(x.dtype)

    def decode(self, spikes: Tensor) -> Tensor:
        """The value whose moment is that of the first spike; 0 without a spike.

        linear:  1 - t / (T - 1)        log:  (e^(T - 1 - t) - 1) / α
        """
        num_steps = self.config.num_steps
        fired = self._sequence(spikes, num_steps) != 0
        steps = torch.arange(num_steps, device=spikes.device, dtype=torch.float64)
        if self.config.curve == "linear":
            value = 1 - steps / (num_steps - 1)
        else:
            value = torch.exp(-steps) * torch.expm1(steps - (num_steps - 1)) / torch.expm1(steps[0] - (num_steps - 1))
        values = value.to(spikes.dtype).reshape(-1, *[1] * (spikes.dim() - 1))
        return torch.where(fired, values, 0).amax(0)  # values fall with time, so the largest is the first spike's


class Delta(Encoder):
    """Delta modulation: a spike of either sign when the value has moved a threshold away from the running estimate.

    out[t] = +1 if x[t] - e >= θ,  -1 if x[t] - e <= -θ,  else 0;    e ← e + θ out[t],    e = 0 at the start

    The estimate is what a receiver adds up, so errors do not accumulate: |x - e| < θ as soon as the estimate has caught
    up, which takes |x| / θ steps from the start. A static input `[B, ...]` is held for `num_steps` steps.

    Gradients: none.

    Example:
        >>> Delta(num_steps=4, threshold=0.25)(torch.tensor([[0.5]])).flatten().tolist()
        [1.0, 1.0, 0.0, 0.0]
    """

    capabilities = EncoderCapabilities(
        spiking=False, signed=True, decodable=True, input_range=None, takes_sequences=True
    )

    @dataclass(frozen=True)
    class Config(Encoder.Config):
        """
        Args:
            threshold: θ, in the unit of the input.
            sequences: inputs are sequences `[T, B, ...]`, whatever their T.
        """

        threshold: Annotated[float, Range(gt=0.0)] = 0.1
        sequences: bool = False

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        x = x.detach()
        if bool(x.isnan().any()):
            raise InputError("Delta takes numbers, got NaN: no spike could say how far it has moved; clean the input")
        sequence = x if self.config.sequences else x.expand(self.config.num_steps, *x.shape)
        if not len(sequence):
            return torch.empty_like(sequence)
        threshold = self.config.threshold
        # Counts are exact, a running sum of thresholds is not.
        count = torch.zeros(sequence.shape[1:], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        spikes = []
        for value in sequence.unbind(0):
            error = value - threshold * count
            spike = (error >= threshold).to(count) - (error <= -threshold).to(count)
            count = count + spike
            spikes.append(spike.to(x.dtype))
        return torch.stack(spikes)

    def decode(self, spikes: Tensor) -> Tensor:
        """The estimate at the end: θ times the sum over time."""
        return self._sequence(spikes).sum(0) * float(self.config.threshold)
