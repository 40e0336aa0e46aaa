"""How a policy's numbers become an action: a choice among actions, or a Gaussian for each number.

choice     p = softmax(out);                 ln p(a),  H = -Σ p ln p
Gaussian   a = out + exp(log_std) n;         ln p(a) = Σ_i -(a_i - out_i)² / 2σ_i² - ln σ_i - ln √2π,
           H = Σ_i ln σ_i + (1 + ln 2π) / 2

torch.distributions draws from the global generator only; these draw from the one that they are given.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class Choice(nn.Module):
    """One of A actions, from their logits `[B, A]`."""

    def draw(self, out: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Actions `[B]` on the CPU, and ln p of each, `[B]`."""
        log_p = out.detach().float().cpu().log_softmax(-1)
        action = torch.multinomial(log_p.exp(), 1, generator=generator).squeeze(1)
        return action, log_p.gather(1, action.unsqueeze(1)).squeeze(1)

    def best(self, out: Tensor) -> Tensor:
        """The most probable action `[B]`."""
        return out.argmax(-1).cpu()

    def log_probability(self, out: Tensor, actions: Tensor) -> Tensor:
        """ln p `[B]`, with a gradient to `out`."""
        return out.log_softmax(-1).gather(1, actions.long().unsqueeze(1)).squeeze(1)

    def entropy(self, out: Tensor) -> Tensor:
        """H `[B]`."""
        log_p = out.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)


class Gaussian(nn.Module):
    """Numbers `[B, K]` around the policy's own, with a learned deviation for each.

    Args:
        num_actions: K.
        log_std: ln of the deviations at first.
    """

    def __init__(self, num_actions: int, log_std: float = -0.5) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.full((num_actions,), log_std))

    def draw(self, out: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Actions `[B, K]` on the CPU, and ln p of each, `[B]`."""
        centre = out.detach().float().cpu()
        noise = torch.randn(centre.shape, generator=generator)
        action = centre + noise * self.log_std.detach().cpu().exp()
        return action, self.log_probability(out.detach(), action.to(out.device)).detach().cpu()

    def best(self, out: Tensor) -> Tensor:
        """The most probable action `[B, K]`."""
        return out.detach().float().cpu()

    def log_probability(self, out: Tensor, actions: Tensor) -> Tensor:
        """ln p `[B]`, with a gradient to `out` and the deviations."""
        scaled = (actions - out) * torch.exp(-self.log_std)
        return (-0.5 * scaled.square() - self.log_std - HALF_LOG_TAU).sum(-1)

    def entropy(self, out: Tensor) -> Tensor:
        """H `[B]`."""
        return (self.log_std + HALF_LOG_TAU + 0.5).sum().expand(len(out))
