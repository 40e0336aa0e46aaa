"""Base of the three families: patches, blocks over tokens, mean over the tokens, classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spikecore import nn
from spikecore_zoo_transformer.parts import MakeNeuron, token_block


class MLP(torch.nn.Module):
    """Two linear layers over tokens, each with norm and neuron.

    Args:
        make_neuron: called for each of the two neuron layers.
        dim: channels.
        hidden: channels between the layers.
    """

    def __init__(self, make_neuron: MakeNeuron, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = token_block(make_neuron, dim, hidden)
        self.fc2 = token_block(make_neuron, hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, D, N]` → spikes of the same shape; without T in single-step mode."""
        out: Tensor = self.fc2(self.fc1(x))
        return out


class Block(torch.nn.Module):
    """Attention and MLP, each added to what it takes.

    Args:
        attention: of tokens.
        mlp: likewise.
    """

    def __init__(self, attention: torch.nn.Module, mlp: torch.nn.Module) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, D, N]` → the same shape; without T in single-step mode."""
        x = x + self.attention(x)
        out: Tensor = x + self.mlp(x)
        return out


class TokenNet(nn.Model):
    """`[T, B, C, H, W]` → `[T, B, num_outputs]`; without T in single-step mode.

    `forward_features` gives what the classifier takes; `spikecore.nn.features(net, names)` gives the values of any
    layers by name.
    """

    classifier: nn.Linear

    @classmethod
    def option_problems(cls, config: Any) -> list[tuple[str, str]]:
        """Heads that do not divide the channels, and channels that the stem cannot halve."""
        problems = []
        heads = getattr(config, "heads", 1)  # not every attention has heads
        if config.dim % heads:
            problems.append(("heads", f"expected a divisor of dim = {config.dim}, got {heads}"))
        if config.dim % 8:
            problems.append(("dim", f"expected a multiple of 8, which the stem halves three times, got {config.dim}"))
        return problems

    def smallest_input(self) -> int:
        """One token."""
        return int(self.config.patch_size)

    def _tokens(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → spikes or counts `[T, B, D, N]`."""
        raise NotImplementedError

    def forward_features(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → what the classifier takes, `[T, B, dim]`; without T in single-step mode."""
        return self._tokens(x).mean(-1)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → `[T, B, num_outputs]`; without T in single-step mode."""
        out: Tensor = self.classifier(self.forward_features(x))
        return out
