"""A net whose inputs and outputs are coded by populations of neurons.

    A_ij = exp(-((x_i - mu_ij) / sigma_ij)² / 2)        P fields for each input i; mu and sigma are learned
    in[t] = A                                           encode = raw
    in[t] = spikes of integrators fed with A            encode = deterministic: soft reset at 0.999
    in → (linear → neuron)* → linear → neuron           the last neurons: Q for each output
    out_k[t] = Σ_q w_kq s_kq[t] + b_k

The mean of out over time is the source's decoder: a linear readout of the firing rates of each output's own population.

Source: Tang et al., Deep Reinforcement Learning with Population-Coded Spiking Neural Network for Continuous Control
(CoRL 2020), 3.1 and 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from spikecore.interfaces import ModelCapabilities, Range
from spikecore.nn import IF, Model

ENCODER_THRESHOLD = 0.999


class ReceptiveFields(nn.Module):
    """Values `[..., N]` → activations `[..., N P]`, population by population.

    Args:
        num_inputs: N.
        size: P.
        low, high: centres of the first and the last field at first.
        std: sigma at first.
    """

    def __init__(self, num_inputs: int, size: int, low: float, high: float, std: float) -> None:
        super().__init__()
        centres = torch.linspace(low, high, size).repeat(num_inputs, 1)
        self.mu = nn.Parameter(centres)
        self.sigma = nn.Parameter(torch.full_like(centres, std))

    def forward(self, x: Tensor) -> Tensor:
        """Activations, 0 to 1."""
        offset = (x.unsqueeze(-1) - self.mu) / self.sigma
        return torch.exp(-0.5 * offset.square()).flatten(-2)


class PopulationReadout(nn.Module):
    """Spikes `[..., K Q]` → numbers `[..., K]`, each from its own population.

    Args:
        num_outputs: K.
        size: Q.
    """

    def __init__(self, num_outputs: int, size: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(size)
        self.weight = nn.Parameter(torch.empty(num_outputs, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(num_outputs))

    def forward(self, spikes: Tensor) -> Tensor:
        """See the class."""
        grouped = spikes.unflatten(-1, self.weight.shape)
        # A product of matrices, so that whoever counts operations sees it.
        return torch.einsum("...kq,kq->...k", grouped, self.weight) + self.bias


class PopulationMLP(Model):
    """Receptive fields, fully connected spiking layers, and a readout of populations; see this module."""

    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities()

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            hidden: width of each hidden layer.
            input_size: P, fields for each input.
            output_size: Q, neurons for each output.
            low: centre of the first field.
            high: centre of the last field.
            std: width of the fields at first.
            gain: of the initial weights, over torch's own, with which a neuron of threshold 1 would be silent.
            encode: how the fields' activations enter: as they are, or as the spikes of integrators.
        """

        hidden: Annotated[tuple[int, ...], Range(ge=1)] = (256, 256)
        input_size: Annotated[int, Range(ge=2)] = 10
        output_size: Annotated[int, Range(ge=1)] = 10
        low: float = -3.0
        high: float = 3.0
        std: Annotated[float, Range(gt=0.0, lt=math.inf)] = math.sqrt(0.15)
        gain: Annotated[float, Range(gt=0.0, lt=math.inf)] = 10.0
        encode: Literal["raw", "deterministic"] = "deterministic"

    @classmethod
    def option_problems(cls, config: Any) -> Any:
        """Fields rise from low to high."""
        if not (math.isfinite(config.low) and math.isfinite(config.high) and config.low < config.high):
            yield "low", f"must be below high, got low = {config.low:g} and high = {config.high:g}"

    def __init__(
        self, make_neuron: Callable[[], nn.Module], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        config = self.config
        self.input_rank = len(input_shape)
        num_inputs = math.prod(input_shape)
        self.fields = ReceptiveFields(num_inputs, config.input_size, config.low, config.high, config.std)
        layers: list[nn.Module] = []
        width = num_inputs * config.input_size
        for size in (*config.hidden, num_outputs * config.output_size):
            linear = nn.Linear(width, size)
            with torch.no_grad():
                linear.weight *= config.gain
            layers += [linear, make_neuron()]
            width = size
        self.integrator: nn.Module | None = None
        if config.encode == "deterministic":
            # It runs where the other neurons run.
            backend = getattr(layers[1], "backend", "auto")
            self.integrator = IF(v_threshold=ENCODER_THRESHOLD, reset="soft", backend=backend)
        self.layers = nn.Sequential(*layers)
        self.readout = PopulationReadout(num_outputs, config.output_size)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, *input_shape]` → `[T, B, num_outputs]`; without T in single-step mode."""
        activations = self.fields(x.flatten(x.dim() - self.input_rank))
        entering = activations if self.integrator is None else self.integrator(activations)
        out: Tensor = self.readout(self.layers(entering))
        return out
