"""What stands in a converted net in the place of a rectifier or of max pooling.

Values are means over time: a neuron with threshold θ that fires with rate r stands for r θ.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikecore.errors import ShapeError, StateError
from spikecore.nn import IF, Stateful


def along_channels(value: Tensor, x: Tensor, is_multi: bool) -> Tensor:
    """A number, or one per channel, shaped to multiply `[T, B, C, ...]` or `[B, C, ...]`."""
    if not value.dim():
        return value
    return value.reshape(-1, *([1] * (x.dim() - 2 - is_multi)))


class SpikingReLU(nn.Module):
    """A rectifier by rate: integrate and fire with soft reset; a spike counts as much as the threshold.

        v ← v + x / θ        s = 1 where v >= 1        v ← v - s        out = θ s

    For constant x the mean output over T steps is θ clip(floor(T x / θ + φ) / T, 0, 1), φ the initial potential.

    Args:
        threshold: θ, `[]`, or `[C]` along axis 1 of a step; a buffer.
        initial: φ, the potential to start from, in units of θ; 0.5 rounds to the nearest rate.

    Source: Rueckauer et al., Conversion of Continuous-Valued Deep Networks (2017), eq. 2-6.
    """

    def __init__(self, threshold: Tensor, initial: float = 0.5) -> None:
        super().__init__()
        self.register_buffer("threshold", threshold.detach().clone())
        self.threshold: Tensor
        self.neuron = IF(reset="soft", v_init=initial)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, ...]` or `[B, C, ...]` by the neuron's step mode → spikes times θ."""
        threshold = along_channels(self.threshold, x, self.neuron.step_mode == "multi")
        out: Tensor = self.neuron(x / threshold) * threshold
        return out


class SpikingLeakyReLU(nn.Module):
    """A leaky rectifier by rate: two rectifiers of one threshold, one for each sign.

        out = θ s₊ - α θ s₋        s₊ the spikes for x, s₋ those for -x

    Its spikes have a sign: a chip that knows positive spikes alone needs the second neuron as one of its own, with
    weights of the other sign.

    Args:
        threshold: θ, as for `SpikingReLU`.
        slope: α, of the negative side.
        initial: φ of both neurons.
    """

    def __init__(self, threshold: Tensor, slope: float, initial: float = 0.5) -> None:
        super().__init__()
        self.positive, self.negative = SpikingReLU(threshold, initial), SpikingReLU(threshold, initial)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, ...]` or `[B, C, ...]` by the neurons' step mode → spikes times θ or -α θ."""
        out: Tensor = self.positive(x) - self.slope * self.negative(-x)
        return out

    def extra_repr(self) -> str:
        return f"slope={self.slope:g}"


class FewSpikeReLU(Stateful):
    """A quantized rectifier, exactly: it first takes in all T steps, then fires as often as its level says.

        n = clip(floor(L Σx / (T θ) + φ), 0, L)        s[t] = 1 where t < n        out[t] = s[t] θ T / L

    So the mean output over T >= L steps is the quantized activation θ n / L of the mean input, in every layer: at
    T = L a whole net computes what the quantized ANN computes. A layer fires after all inputs are there, hence a
    latency of T steps per layer, and no single-step mode.

    Args:
        threshold: θ, `[]`, or `[C]` along axis 1 of a step; a buffer.
        levels: L.
        shift: φ.

    Source: the neuron of Stöckl & Maass, Optimized spiking neurons can classify images with high accuracy through
        temporal coding with two spikes (2021), with equal weights in time; the equivalence to quantized ANNs of You et
        al., SpikeZIP-TF (2024), eq. 5-9.
    """

    def __init__(self, threshold: Tensor, levels: int, shift: float = 0.5) -> None:
        super().__init__()
        self.register_buffer("threshold", threshold.detach().clone())
        self.threshold: Tensor
        self.levels, self.shift = levels, shift

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """No state: a sequence is taken in as a whole."""
        return {}

    @property
    def state_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, ...]` → spikes times θ T / L.

        Raises:
            StateError: single-step mode, or a `streaming` block.
            ShapeError: T < L.
        """
        if self.keeps_state:
            raise StateError(
                "a few-spike neuron fires after it has seen all steps: give the sequence as a whole, in multi-step "
                "mode and outside streaming(net), or convert with another recipe"
            )
        num_steps = x.shape[0]
        if 0 < num_steps < self.levels:
            raise ShapeError(
                f"a few-spike neuron of {self.levels} levels needs T >= {self.levels} steps, got {num_steps}"
            )
        threshold = along_channels(self.threshold, x[0] if num_steps else x.sum(0), is_multi=False)
        unit = threshold / self.levels
        level = (x.mean(0) if num_steps else x.sum(0)) / unit
        count = torch.floor(level + self.shift).clamp(0, self.levels)
        # Straight through the floor, within the clip, so that the net trains on.
        inside = (level > -self.shift) & (level < self.levels)
        count = count + torch.where(inside, level - level.detach(), torch.zeros_like(level))
        steps = torch.arange(num_steps, device=x.device).reshape(-1, *([1] * (x.dim() - 1)))
        fires = (steps < count.detach()).to(x.dtype)
        share = (count - count.detach()) / max(num_steps, 1)
        return (fires + share) * unit * num_steps

    def extra_repr(self) -> str:
        return f"levels={self.levels}, shift={self.shift}"
