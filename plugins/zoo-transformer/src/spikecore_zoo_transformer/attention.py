"""Attention among tokens `[T, B, D, N]` whose queries, keys and values are spikes.

    self-attention      A = neuron(s · (Q Kᵀ) V)                 per head, no softmax: all entries are counts
    spike-driven        A[d, n] = neuron(s · Σ_n Q[d, n] K[d, n]) V[d, n]
    Q-K, over tokens    A[d, n] = neuron(s · Σ_d Q[d, n]) K[d, n]     the sum over the channels of a head
    Q-K, over channels  A[d, n] = neuron(s · Σ_n Q[d, n]) K[d, n]     the sum over the tokens

Entries of Q, K and V are 0 or 1, so (Q Kᵀ) V = Q (Kᵀ V) exactly; the cheaper one is computed: for N tokens and heads of
width w, 2 N² w or 2 N w² MACs per head.

The authors of all three nets give the neuron of the attention a threshold of 0.5, half that of the others. Neurons
come from `make_neuron` here, so the factor s is twice theirs instead: 2 · 0.125 for self-attention, 2 for the sums,
which have no factor. For neurons that are linear below their threshold and reset to 0 these are the same spikes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikecore_zoo_transformer.parts import MakeNeuron, token_block, token_conv_bn


def spread_attention(query: Tensor, key: Tensor, value: Tensor, is_token_wise: bool) -> Tensor:
    """`(Q Kᵀ) V` of each head.

    Args:
        query, key, value: `[..., heads, width, N]`.
        is_token_wise: compute Q Kᵀ first, of N² entries; else Kᵀ V, of width².
    """
    if is_token_wise:
        similarity = query.transpose(-2, -1) @ key  # [..., N, N]
        return value @ similarity.transpose(-2, -1)
    return (value @ key.transpose(-2, -1)) @ query


class SpikingSelfAttention(torch.nn.Module):
    """Spiking self-attention; everything is followed by its neuron.

    Args:
        make_neuron: called for each of the three neuron layers.
        dim: channels.
        heads: of the attention; divides `dim`.
        scale: s above.
        num_tokens: as many as there will be, by which the cheaper order of the products is chosen once: a graph of the
            net cannot branch. Any number is computed rightly.

    Source: Zhou et al. 2022, Spikformer, https://arxiv.org/abs/2209.15425.
    """

    def __init__(self, make_neuron: MakeNeuron, dim: int, heads: int, scale: float, num_tokens: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.is_token_wise = num_tokens <= dim // heads
        self.qkv = token_block(make_neuron, dim, 3 * dim)
        self.neuron = make_neuron()
        self.proj = token_block(make_neuron, dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes or counts `[T, B, D, N]` → spikes of the same shape; without T in single-step mode."""
        qkv = self.qkv(x).unflatten(-2, (3, self.heads, -1))  # [..., 3, heads, width, N]
        query, key, value = qkv.unbind(-4)
        mixed = spread_attention(query, key, value, self.is_token_wise).flatten(-3, -2)
        out: Tensor = self.proj(self.neuron(mixed * self.scale))
        return out


class SpikeDrivenAttention(torch.nn.Module):
    """Spike-driven self-attention: masks and sums, no product of matrices; it takes and gives currents.

    Args:
        make_neuron: called for each of the three neuron layers.
        dim: channels.
        scale: s above.

    Source: Yao et al. 2023, Spike-driven Transformer, https://arxiv.org/abs/2307.01694.
    """

    def __init__(self, make_neuron: MakeNeuron, dim: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.first_neuron = make_neuron()
        self.qkv = token_block(make_neuron, dim, 3 * dim)
        self.neuron = make_neuron()
        self.proj = token_conv_bn(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Currents `[T, B, D, N]` → currents of the same shape; without T in single-step mode."""
        query, key, value = self.qkv(self.first_neuron(x)).unflatten(-2, (3, -1)).unbind(-3)
        mask = self.neuron((query * key).sum(-1, keepdim=True) * self.scale)
        out: Tensor = self.proj(mask * value)
        return out


class QKAttention(torch.nn.Module):
    """Q-K attention: a mask over the tokens of a head, or over the channels, from the number of query spikes of each.

    Args:
        make_neuron: called for each of the three neuron layers.
        dim: channels.
        heads: with a mask each; divides `dim`.
        scale: s above.
        over: `tokens` or `channels`.

    Source: Zhou et al. 2024, QKFormer, https://arxiv.org/abs/2403.16552.
    """

    def __init__(self, make_neuron: MakeNeuron, dim: int, heads: int, scale: float, over: str = "tokens") -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.summed = {"tokens": -2, "channels": -1}[over]
        self.qk = token_block(make_neuron, dim, 2 * dim)
        self.neuron = make_neuron()
        self.proj = token_block(make_neuron, dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes or counts `[T, B, D, N]` → spikes of the same shape; without T in single-step mode."""
        query, key = self.qk(x).unflatten(-2, (2, self.heads, -1)).unbind(-4)  # [..., heads, width, N]
        mask = self.neuron(query.sum(self.summed, keepdim=True) * self.scale)
        out: Tensor = self.proj((mask * key).flatten(-3, -2))
        return out
