"""QKFormer for event data: two stages of tokens; Q-K attention in the first, self-attention in the second.

    stem        convolution 3×3 → norm → neuron, then convolution 3×3 → norm → max pooling → neuron
    patches     first stage: two pooled convolutions + a shortcut (convolution 1×1 of stride 4 → norm → neuron);
                second stage: as in `qkformer`, with the pooling behind the second convolution
    blocks      x + attention(x), then x + MLP(x): counts of spikes
    classifier  linear, of the mean over the tokens

A token of the first stage is 8 × 8 pixels, of the second 16 × 16. The paper gives 1.50 million parameters, which is an
MLP as wide as its input (`mlp_ratio=1`, the authors' net for CIFAR10-DVS); their net for DVS Gesture has `mlp_ratio=4`.

Source: Zhou et al. 2024, QKFormer: Hierarchical Spiking Transformer using Q-K Attention,
https://arxiv.org/abs/2403.16552.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from spikecore import nn
from spikecore.interfaces import ModelCapabilities, ModelInfo, Range
from spikecore_zoo_transformer.attention import QKAttention, SpikingSelfAttention
from spikecore_zoo_transformer.parts import MakeNeuron, image_block, initialize, num_patches
from spikecore_zoo_transformer.qkformer import REFERENCE, PooledConv, ShortcutPatches, Stage
from spikecore_zoo_transformer.token_net import MLP, Block, TokenNet

TOKEN_SIZE = 16
"""Height and width, in pixels, of a token of the last stage."""


class FirstPatches(torch.nn.Module):
    """Two pooled convolutions, and a shortcut of stride 4.

    Args:
        make_neuron: called for each of the three neuron layers.
        in_channels, out_channels: of the maps; the first convolution gives half of `out_channels`.
    """

    def __init__(self, make_neuron: MakeNeuron, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = torch.nn.Sequential(
            PooledConv(make_neuron, in_channels, out_channels // 2, 2),
            PooledConv(make_neuron, out_channels // 2, out_channels, 2),
        )
        shortcut = torch.nn.Conv2d(in_channels, out_channels, 1, 4, bias=False)
        self.shortcut = nn.ConvBNNeuron(shortcut, torch.nn.BatchNorm2d(out_channels), make_neuron())

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → counts; without T in single-step mode."""
        out: Tensor = self.convs(x) + self.shortcut(x)
        return out


class QKFormer2x256(TokenNet):
    """QKFormer HST-2-256 for event data of 128 × 128 pixels."""

    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities(min_input_size=TOKEN_SIZE, input_rank=3)
    info = ModelInfo(1_502_986, 507_513_344, (2, 128, 128), 10, REFERENCE)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            depths: number of blocks in each of the two stages.
            dim: channels of a token in the second stage; the first has half of it.
            heads: of every attention; divides `dim / 2`.
            mlp_ratio: channels inside the MLP, as a multiple of the stage's; 1 for CIFAR10-DVS, 4 for DVS Gesture.
            attention_scale: of Q Kᵀ V in the second stage; 0.125 for a threshold of 0.5 is 0.25 for one of 1.
            mask_scale: of the sums of queries in the first; 1 for the authors' threshold of 0.5 is 2 for one of 1.
            mask_over: what a mask of the first stage chooses: `tokens` of a head, or `channels`.
        """

        depths: Annotated[tuple[int, int], Range(ge=0)] = (1, 1)
        dim: Annotated[int, Range(ge=16)] = 256
        heads: Annotated[int, Range(ge=1)] = 16
        mlp_ratio: Annotated[int, Range(ge=1)] = 1
        attention_scale: Annotated[float, Range(gt=0.0)] = 0.25
        mask_scale: Annotated[float, Range(gt=0.0)] = 2.0
        mask_over: Literal["tokens", "channels"] = "tokens"

    def __init__(
        self, make_neuron: Callable[[], Any], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        config = self.config
        dim, half = config.dim, config.dim // 2
        num_tokens = num_patches(input_shape, TOKEN_SIZE)

        def block(attention: torch.nn.Module, channels: int) -> Block:
            return Block(attention, MLP(make_neuron, channels, channels * config.mlp_ratio))

        first = [
            block(QKAttention(make_neuron, half, config.heads, config.mask_scale, config.mask_over), half)
            for _ in range(config.depths[0])
        ]
        second = [
            block(SpikingSelfAttention(make_neuron, dim, config.heads, config.attention_scale, num_tokens), dim)
            for _ in range(config.depths[1])
        ]
        self.stem = torch.nn.Sequential(
            image_block(make_neuron, input_shape[0], dim // 16), PooledConv(make_neuron, dim // 16, dim // 8, 2)
        )
        self.stages = torch.nn.Sequential(
            Stage(FirstPatches(make_neuron, dim // 8, half), torch.nn.Sequential(*first)),
            Stage(ShortcutPatches(make_neuron, half, dim, 2, pools_late=True), torch.nn.Sequential(*second)),
        )
        self.classifier = nn.Linear(dim, num_outputs)
        initialize(self)

    @classmethod
    def option_problems(cls, config: Any) -> list[tuple[str, str]]:
        """Heads that do not divide the channels of the first stage, and channels that cannot be halved four times."""
        if config.dim % 16:
            return [("dim", f"expected a multiple of 16, got {config.dim}")]
        if config.dim // 2 % config.heads:
            return [("heads", f"expected a divisor of dim / 2 = {config.dim // 2}, got {config.heads}")]
        return []

    def smallest_input(self) -> int:
        """One token in the last stage."""
        return TOKEN_SIZE

    def _tokens(self, x: Tensor) -> Tensor:
        images: Tensor = self.stages(self.stem(x))
        return images.flatten(-2)
