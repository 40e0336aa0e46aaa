"""Current-based LIF with noise on its input and its output, for exploration in reinforcement learning.

    s[t] = CubaLIF(x[t] + sigma n[t]),  out[t] = s[t] + sigma m[t]

n and m are unit Gaussian noise per neuron, equal for the whole batch; their power falls with frequency as 1 / f^beta
over the sequence. Neurons with noise are not elementwise: the neuron language holds no random numbers. The noise stands
outside of the recurrence, so CubaLIF itself stays fused.

Source: Chen et al., Noisy spiking actor network for exploration (2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from spikecore.errors import OptionError, StateError
from spikecore.interfaces import Inner, NeuronCapabilities, Range
from spikecore.nn import ATan, CubaLIF, Surrogate, TorchNeuron, widened
from spikecore_neuron_zoo.ilc_cuba import ILCCubaLIF
from spikecore_neuron_zoo.options import options_of


def coloured_noise(beta: float, num_steps: int, size: int, like: Tensor) -> Tensor:
    """Gaussian noise `[num_steps, size]` of unit variance whose power spectrum falls as 1 / f^beta.

    Source: Timmer and König, On generating power law noise (Astronomy and Astrophysics 1995): independent Gaussian
    Fourier coefficients, scaled by f^(-beta/2); the mean gets the power of the lowest frequency.
    """
    options = {"dtype": like.dtype, "device": like.device}
    if beta == 0 or num_steps == 1:
        return torch.randn(num_steps, size, **options)
    frequency = torch.arange(num_steps // 2 + 1, **options).clamp(min=1.0) / num_steps
    amplitude = frequency ** (-beta / 2)
    real, imaginary = torch.randn(2, len(frequency), size, **options)
    is_real = torch.zeros(len(frequency), 1, dtype=torch.bool, device=like.device)
    is_real[0] = True
    if num_steps % 2 == 0:
        is_real[-1] = True
    coefficient = torch.complex(torch.where(is_real, math.sqrt(2) * real, real), torch.where(is_real, 0.0, imaginary))
    counted = torch.where(is_real[:, 0], 1.0, 2.0)  # the others stand for two frequencies, f and -f
    deviation = (2 * (counted * amplitude**2).sum()).sqrt() / num_steps
    return torch.fft.irfft(coefficient * amplitude[:, None], n=num_steps, dim=0) / deviation


class Noisy(TorchNeuron):
    """Base: a subclass names the neuron that the noise surrounds, and adds the options of its size."""

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(elementwise=False, spiking=False, stochastic=True)
    inner: ClassVar[type[CubaLIF | ILCCubaLIF]]
    why_torch = "the noise is added outside of the recurrence, which the inner neuron runs"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """
        Args:
            sigma: standard deviation of the noise, times the square root of the layer's size.
            noise_beta: exponent of the noise's spectrum: 0 white, 1 pink, 2 brown.
            num_steps: steps for which noise is drawn at once; 0 draws white noise step by step.
            c_decay: what is left of the current after one step.
            v_decay: what is left of the potential after one step.
            v_threshold: fires when the potential reaches it.
            v_reset: initial `v`, target of the hard reset.
            reset: `hard` or `soft`.
            detach_reset: no gradient through `s` in the reset.
            surrogate: the derivative of the spike.
        """

        sigma: Annotated[float, Range(ge=0.0)] = 0.5
        noise_beta: Annotated[float, Range(ge=0.0)] = 0.0
        num_steps: Annotated[int, Range(ge=0)] = 0
        c_decay: Annotated[float, Range(ge=0.0, le=1.0)] = 0.5
        v_decay: Annotated[float, Range(ge=0.0, le=1.0)] = 0.75
        v_threshold: float = 0.5
        v_reset: float = 0.0
        reset: Literal["hard", "soft"] = "hard"
        detach_reset: bool = False
        surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()  # noqa: RUF009  (immutable)

    def __init__(self, *, step_mode: str = "multi", backend: str = "auto", **options: Any) -> None:
        super().__init__(step_mode=step_mode, **options)
        if self.config.noise_beta and not self.config.num_steps:
            raise OptionError(
                f"{type(self).__name__}: noise_beta={self.config.noise_beta} correlates the noise of a whole sequence: "
                "give its longest length as num_steps"
            )
        self.backend = backend
        self.neuron = self.inner(step_mode=step_mode, backend=backend, **options_of(self.inner, self.config))

    @property
    def size(self) -> int:
        """Neurons in the layer."""
        raise NotImplementedError

    def through(self, x: Tensor, noise: Tensor) -> Tensor:
        """The inner neuron's output for `x`, with `noise` `[T, 1, N]` on its way out."""
        single = self.step_mode == "single"
        out: Tensor = self.neuron(x.squeeze(0) if single else x)
        return (out.unsqueeze(0) if single else out) + noise

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """With `num_steps`: the noise, drawn in the first step, and `t`, the steps that are over; -1 before."""
        self.check_channels(x.flatten(1) if x.dim() > 1 else x, self.size)
        if not self.config.num_steps:
            return {}
        options = {"dtype": widened(x).dtype, "device": x.device}
        noise = torch.zeros(self.config.num_steps, *x.shape[1:], **options)
        return {"noise_in": noise, "noise_out": noise.clone(), "t": torch.full((), -1.0, **options)}

    def run(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `TorchNeuron.run`."""
        if not self.training:
            return self.through(x, x.new_zeros(1, 1, 1)), self._advanced(state, x.shape[0])
        before, after, state = self._noise(x, state)
        return self.through(x + before.unsqueeze(1), after.unsqueeze(1)), state

    def _noise(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        sigma, beta = self.config.sigma / math.sqrt(self.size), self.config.noise_beta
        if not self.config.num_steps:
            form = x.shape[:1] + x.shape[2:]
            drawn = [coloured_noise(0.0, form[0], self.size, x).reshape(form) for _ in range(2)]
            return sigma * drawn[0], sigma * drawn[1], state
        if int(state["t"]) < 0:
            form = state["noise_in"].shape
            drawn = [coloured_noise(beta, form[0], self.size, x).reshape(form) for _ in range(2)]
            state = {"noise_in": drawn[0], "noise_out": drawn[1], "t": torch.zeros_like(state["t"])}
        start = int(state["t"])
        state = self._advanced(state, x.shape[0])
        now = slice(start, start + x.shape[0])
        return sigma * state["noise_in"][now], sigma * state["noise_out"][now], state

    def _advanced(self, state: dict[str, Tensor], num_steps: int) -> dict[str, Tensor]:
        if not state or int(state["t"]) < 0:
            return state
        if int(state["t"]) + num_steps > self.config.num_steps:
            raise StateError(
                f"{type(self).__name__} draws noise for num_steps={self.config.num_steps} steps, {int(state['t'])} are "
                f"over and {num_steps} more came: call reset_state(net) first, or make it with a larger num_steps"
            )
        return {**state, "t": state["t"] + num_steps}


class NoisyCubaLIF(Noisy):
    """CubaLIF with Gaussian noise on its input and its output.

    s[t] = CubaLIF(x[t] + σ n[t]);  out[t] = s[t] + σ m[t];  σ = sigma / sqrt(num_features)

    In training; in eval it is CubaLIF. n and m are drawn from torch's generator of the device, equal for the batch,
    afresh for every sequence: white, or of power 1 / f^noise_beta over `num_steps` steps, which are then the longest
    sequence. It is not elementwise (see this module's docstring).

    Returns:
        Spikes plus noise, of the input's shape `[T, B, num_features]` and dtype.

    Raises:
        ShapeError: a step does not have `num_features` features.
        StateError: a sequence is longer than the noise that was drawn.

    Gradients: those of CubaLIF.

    Source: Chen et al., Noisy spiking actor network for exploration (2024).

    Parity: spikingjelly's NoisyCUBALIFNode fed the same noise; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> neuron = NoisyCubaLIF(num_features=2, sigma=0.0)
        >>> neuron(torch.tensor([[[0.5, 0.25]], [[0.0, 0.25]]])).tolist()
        [[[1.0, 0.0]], [[0.0, 1.0]]]
    """

    inner = CubaLIF

    @dataclass(frozen=True, kw_only=True)
    class Config(Noisy.Config):
        """
        Args:
            num_features: neurons in the layer.
        """

        num_features: Annotated[int, Range(ge=1)]

    @property
    def size(self) -> int:
        return int(self.config.num_features)


class NoisyILCCubaLIF(Noisy):
    """CubaLIF with intra-layer connections, and Gaussian noise on its input and its output.

    s[t] = ILCCubaLIF(x[t] + σ n[t]);  out[t] = s[t] + σ m[t];  σ = sigma / sqrt(num_groups · group_size)

    As `NoisyCubaLIF`; what is fed back within the layer is out, noise and all. It is not elementwise (see this module's
    docstring).

    Returns:
        Spikes plus noise, of the input's shape `[T, B, num_groups · group_size]` and dtype.

    Raises:
        ShapeError: a step does not have num_groups · group_size features.
        StateError: a sequence is longer than the noise that was drawn.

    Gradients: those of ILCCubaLIF.

    Source: Chen et al., Noisy spiking actor network for exploration (2024).

    Parity: spikingjelly's NoisyILCCUBALIFNode fed the same noise; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> neuron = NoisyILCCubaLIF(num_groups=1, group_size=2, sigma=0.0)
        >>> _ = neuron.neuron.weight.data.fill_(0.25), neuron.neuron.bias.data.zero_()
        >>> neuron(torch.tensor([[[0.5, 0.0]], [[0.0, 0.25]]])).tolist()
        [[[1.0, 0.0]], [[1.0, 1.0]]]
    """

    inner = ILCCubaLIF

    @dataclass(frozen=True, kw_only=True)
    class Config(Noisy.Config):
        """
        Args:
            num_groups: groups of neurons that are connected among themselves.
            group_size: neurons in a group.
        """

        num_groups: Annotated[int, Range(ge=1)]
        group_size: Annotated[int, Range(ge=1)]

    @property
    def size(self) -> int:
        return int(self.config.num_groups * self.config.group_size)

    def through(self, x: Tensor, noise: Tensor) -> Tensor:
        """The noise joins the spikes inside, so that it is fed back too."""
        single = self.step_mode == "single"
        out: Tensor = self.neuron(x.squeeze(0) if single else x, added=noise.expand(x.shape[0], *noise.shape[1:]))
        return out.unsqueeze(0) if single else out
