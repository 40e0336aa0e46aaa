"""Spike-driven Transformer, the first version: masks and sums in the place of matrix products, shortcuts of currents.

    patches      u: (convolution 3×3 → norm → neuron → max pooling) three times, convolution → norm → max pooling;
                 then u + norm(convolution 3×3(neuron(u))), which tells the places of the image apart
    blocks       u + attention(u), then u + MLP(u); both begin with a neuron and end with a norm
    classifier   linear, of the mean over the tokens of neuron(u); the authors' code takes the mean before that neuron

Where a neuron follows a norm directly the layer is a `ConvBNNeuron`; the last layers of both branches of a block have
the sum behind them and cannot be.

Source: Yao et al. 2023, Spike-driven Transformer, https://arxiv.org/abs/2307.01694.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from spikecore import nn
from spikecore.interfaces import ModelCapabilities, ModelInfo, Range
from spikecore_zoo_transformer.attention import SpikeDrivenAttention
from spikecore_zoo_transformer.parts import (
    MakeNeuron,
    halving,
    image_block,
    image_conv_bn,
    initialize,
    token_block,
    token_conv_bn,
)
from spikecore_zoo_transformer.token_net import Block, TokenNet

REFERENCE = "Yao et al. 2023, Spike-driven Transformer, https://arxiv.org/abs/2307.01694"
NUM_STAGES = 4
"""Convolutions that make patches."""


class CurrentPatches(torch.nn.Module):
    """Images to the currents of tokens.

    Args:
        make_neuron: called for each of the four neuron layers.
        in_channels: of the image.
        dim: channels of a token.
        patch_size: 2, 4, 8 or 16: so many pixels become one, in height and in width.
    """

    def __init__(self, make_neuron: MakeNeuron, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        num_poolings = patch_size.bit_length() - 1
        stages: list[torch.nn.Module] = []
        channels = in_channels
        for stage in range(NUM_STAGES):
            out = dim // 2 ** (NUM_STAGES - 1 - stage)
            is_last = stage == NUM_STAGES - 1
            stages.append(image_conv_bn(channels, out) if is_last else image_block(make_neuron, channels, out))
            if stage >= NUM_STAGES - num_poolings:
                stages.append(halving())
            channels = out
        self.stages = torch.nn.Sequential(*stages)
        self.neuron = make_neuron()
        self.position = image_conv_bn(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → currents `[T, B, D, N]`; without T in single-step mode."""
        x = self.stages(x)
        out: Tensor = x + self.position(self.neuron(x))
        return out.flatten(-2)


class CurrentMLP(torch.nn.Module):
    """Neuron and linear layer over tokens, twice; it takes and gives currents.

    Args:
        make_neuron: called for each of the two neuron layers.
        dim: channels.
        hidden: channels between the layers.
    """

    def __init__(self, make_neuron: MakeNeuron, dim: int, hidden: int) -> None:
        super().__init__()
        self.first_neuron = make_neuron()
        self.fc1 = token_block(make_neuron, dim, hidden)
        self.fc2 = token_conv_bn(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, D, N]` → currents of the same shape; without T in single-step mode."""
        out: Tensor = self.fc2(self.fc1(self.first_neuron(x)))
        return out


class SpikeDrivenTransformer(TokenNet):
    """Base of the sizes; see the module."""

    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities(min_input_size=16, input_rank=3)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            depth: number of blocks.
            dim: channels of a token.
            mlp_ratio: channels inside the MLP, as a multiple of `dim`.
            patch_size: height and width, in pixels, of what becomes a token.
            attention_scale: of the sums over the tokens, before their neuron; 1 for the authors' threshold of 0.5 is 2
                for one of 1.
        """

        depth: Annotated[int, Range(ge=1)] = 8
        dim: Annotated[int, Range(ge=8)] = 512
        mlp_ratio: Annotated[int, Range(ge=1)] = 4
        patch_size: Literal[2, 4, 8, 16] = 16
        attention_scale: Annotated[float, Range(gt=0.0)] = 2.0

    def __init__(
        self, make_neuron: Callable[[], Any], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        config = self.config
        dim = config.dim
        self.patches = CurrentPatches(make_neuron, input_shape[0], dim, config.patch_size)
        blocks = []
        for _ in range(config.depth):
            attention = SpikeDrivenAttention(make_neuron, dim, config.attention_scale)
            blocks.append(Block(attention, CurrentMLP(make_neuron, dim, dim * config.mlp_ratio)))
        self.blocks = torch.nn.Sequential(*blocks)
        self.neuron = make_neuron()
        self.classifier = nn.Linear(dim, num_outputs)
        initialize(self)

    def _tokens(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.neuron(self.blocks(self.patches(x)))
        return tokens


def _imagenet(parameters: int, macs: int) -> ModelInfo:
    return ModelInfo(parameters, macs, (3, 224, 224), 1000, REFERENCE)


def _cifar(parameters: int, macs: int) -> ModelInfo:
    return ModelInfo(parameters, macs, (3, 32, 32), 10, REFERENCE)


class SDT8x384(SpikeDrivenTransformer):
    """Spike-driven Transformer-8-384 for ImageNet; see `SpikeDrivenTransformer`."""

    info = _imagenet(parameters=16_797_592, macs=4_660_730_880)

    @dataclass(frozen=True)
    class Config(SpikeDrivenTransformer.Config):
        """As `SpikeDrivenTransformer`, of this size."""

        dim: Annotated[int, Range(ge=8)] = 384


class SDT6x512(SpikeDrivenTransformer):
    """Spike-driven Transformer-6-512 for ImageNet; see `SpikeDrivenTransformer`."""

    info = _imagenet(parameters=23_354_920, macs=7_023_546_368)

    @dataclass(frozen=True)
    class Config(SpikeDrivenTransformer.Config):
        """As `SpikeDrivenTransformer`, of this size."""

        depth: Annotated[int, Range(ge=1)] = 6


class SDT8x512(SpikeDrivenTransformer):
    """Spike-driven Transformer-8-512 for ImageNet; see `SpikeDrivenTransformer`."""

    info = _imagenet(parameters=29_664_808, macs=8_256_671_744)


class SDT10x512(SpikeDrivenTransformer):
    """Spike-driven Transformer-10-512 for ImageNet; see `SpikeDrivenTransformer`."""

    info = _imagenet(parameters=35_974_696, macs=9_489_797_120)

    @dataclass(frozen=True)
    class Config(SpikeDrivenTransformer.Config):
        """As `SpikeDrivenTransformer`, of this size."""

        depth: Annotated[int, Range(ge=1)] = 10


class SDT8x768(SpikeDrivenTransformer):
    """Spike-driven Transformer-8-768 for ImageNet; see `SpikeDrivenTransformer`."""

    info = _imagenet(parameters=66_301_768, macs=18_512_099_328)

    @dataclass(frozen=True)
    class Config(SpikeDrivenTransformer.Config):
        """As `SpikeDrivenTransformer`, of this size."""

        dim: Annotated[int, Range(ge=8)] = 768


class SDT2x512(SpikeDrivenTransformer):
    """Spike-driven Transformer-2-512 for CIFAR, with patches of 4; see `SpikeDrivenTransformer`."""

    capabilities = ModelCapabilities(min_input_size=4, input_rank=3)
    info = _cifar(parameters=10_227_274, macs=1_234_899_968)

    @dataclass(frozen=True)
    class Config(SpikeDrivenTransformer.Config):
        """As `SpikeDrivenTransformer`, of this size."""

        depth: Annotated[int, Range(ge=1)] = 2
        patch_size: Literal[2, 4, 8, 16] = 4


class SDT2x256(SpikeDrivenTransformer):
    """Spike-driven Transformer-2-256 for DVS Gesture, with patches of 8; see `SpikeDrivenTransformer`.

    For CIFAR10-DVS in 64² the authors take patches of 4.
    """

    capabilities = ModelCapabilities(min_input_size=8, input_rank=3)
    info = ModelInfo(2_563_851, 1_469_057_792, (2, 128, 128), 11, REFERENCE)

    @dataclass(frozen=True)
    class Config(SpikeDrivenTransformer.Config):
        """As `SpikeDrivenTransformer`, of this size."""

        depth: Annotated[int, Range(ge=1)] = 2
        dim: Annotated[int, Range(ge=8)] = 256
        patch_size: Literal[2, 4, 8, 16] = 8
