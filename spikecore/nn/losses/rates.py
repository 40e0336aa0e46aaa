"""Losses of the firing rate and of the number of spikes."""

from __future__ import annotations

from torch import Tensor

from spikecore.nn.losses.base import CrossEntropyConfig, Loss, MSEConfig, cross_entropy, levels
from spikecore.nn.readouts import count, rate


class RateCrossEntropy(Loss):
    """CE(r, y), r = 1/T Σ_t out[t].

    Gradients: (softmax(r) - y) / T, the same for every step.

    Example:
        >>> out = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
        >>> round(RateCrossEntropy()(out, torch.tensor([0])).item(), 4)
        0.3133
    """

    Config = CrossEntropyConfig

    def per_sample(self, out: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(rate(out), target, self.config.label_smoothing)


class RateMSE(Loss):
    """MSE(r, y'), r = 1/T Σ_t out[t]: by default the class should fire in every step, the others never.

    Gradients: 2 (r - y') / (C T), the same for every step.

    Example:
        >>> out = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
        >>> RateMSE(on=1.0, off=0.0)(out, torch.tensor([0])).item()
        0.125
    """

    Config = MSEConfig

    def per_sample(self, out: Tensor, target: Tensor) -> Tensor:
        r = rate(out)
        return (r - levels(r, target, self.config.on, self.config.off)).square().mean(1)


class CountCrossEntropy(Loss):
    """CE(n, y), n = Σ_t out[t]: as `RateCrossEntropy`, with logits that grow with T.

    Gradients: softmax(n) - y, the same for every step.

    Example:
        >>> out = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
        >>> round(CountCrossEntropy()(out, torch.tensor([0])).item(), 4)
        0.1269
    """

    readout = "count"
    Config = CrossEntropyConfig

    def per_sample(self, out: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(count(out), target, self.config.label_smoothing)


class CountMSE(Loss):
    """MSE(n, T y'), n = Σ_t out[t]; `on` and `off` are rates, so that the same options serve every T.

    Gradients: 2 (n - T y') / C, the same for every step.

    Example:
        >>> out = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
        >>> CountMSE(on=1.0, off=0.0)(out, torch.tensor([0])).item()
        0.5
    """

    readout = "count"
    Config = MSEConfig

    def per_sample(self, out: Tensor, target: Tensor) -> Tensor:
        n = count(out)
        wanted = len(out) * levels(n, target, self.config.on, self.config.off)
        return (n - wanted).square().mean(1)
