"""Spikformer: a vision transformer whose queries, keys and values are spikes.

    patches      (convolution 3×3 → norm → neuron → max pooling) four times, of dim / 8 to dim channels; then
                 x + (convolution 3×3 → norm → neuron), which tells the places of the image apart
    blocks       x + self-attention(x), then x + MLP(x): counts of spikes
    classifier   linear, of the mean over the tokens

Every neuron but that of the attention follows its norm directly, so these layers are `ConvBNNeuron`s, over tokens as
convolutions of size 1.

Source: Zhou et al. 2022, Spikformer: When Spiking Neural Network Meets Transformer, https://arxiv.org/abs/2209.15425.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from spikecore import nn
from spikecore.errors import ConversionError
from spikecore.interfaces import ModelCapabilities, ModelInfo, Range
from spikecore_zoo_transformer.attention import SpikingSelfAttention
from spikecore_zoo_transformer.keys import import_spikformer
from spikecore_zoo_transformer.parts import MakeNeuron, halving, image_block, image_conv_bn, initialize, num_patches
from spikecore_zoo_transformer.token_net import MLP, Block, TokenNet

REFERENCE = (
    "Zhou et al. 2022, Spikformer: When Spiking Neural Network Meets Transformer, https://arxiv.org/abs/2209.15425"
)
NUM_STAGES = 4
"""Convolutions that make patches."""


class Patches(torch.nn.Module):
    """Images to tokens: four convolutions, the last of them with pooling, and one that tells places apart.

    Args:
        make_neuron: called for each of the five neuron layers.
        in_channels: of the image.
        dim: channels of a token.
        patch_size: 2, 4, 8 or 16: so many pixels become one, in height and in width.
        pool_first: pool the currents of the neurons, not their spikes.
    """

    def __init__(self, make_neuron: MakeNeuron, in_channels: int, dim: int, patch_size: int, pool_first: bool) -> None:
        super().__init__()
        num_poolings = patch_size.bit_length() - 1
        stages: list[torch.nn.Module] = []
        channels = in_channels
        for stage in range(NUM_STAGES):
            out = dim // 2 ** (NUM_STAGES - 1 - stage)
            has_pooling = stage >= NUM_STAGES - num_poolings
            if has_pooling and pool_first:
                stages += [image_conv_bn(channels, out), halving(), make_neuron()]
            else:
                stages.append(image_block(make_neuron, channels, out))
                stages += [halving()] if has_pooling else []
            channels = out
        self.stages = torch.nn.Sequential(*stages)
        self.position = image_block(make_neuron, dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → counts `[T, B, D, N]`; without T in single-step mode."""
        x = self.stages(x)
        out: Tensor = x + self.position(x)
        return out.flatten(-2)


class Spikformer(TokenNet):
    """Base of the sizes; see the module."""

    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities(min_input_size=16, input_rank=3)
    weight_sources: ClassVar[tuple[str, ...]] = ("spikingjelly",)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            depth: number of blocks.
            dim: channels of a token.
            heads: of the attention; divides `dim`.
            mlp_ratio: channels inside the MLP, as a multiple of `dim`.
            patch_size: height and width, in pixels, of what becomes a token.
            attention_scale: of Q Kᵀ V; the paper's 0.125 for a threshold of 0.5 is 0.25 for one of 1.
            pool_first: pool the currents of the first neurons, as SpikingJelly does, and not their spikes.
        """

        depth: Annotated[int, Range(ge=1)] = 8
        dim: Annotated[int, Range(ge=8)] = 512
        heads: Annotated[int, Range(ge=1)] = 8
        mlp_ratio: Annotated[int, Range(ge=1)] = 4
        patch_size: Literal[2, 4, 8, 16] = 16
        attention_scale: Annotated[float, Range(gt=0.0)] = 0.25
        pool_first: bool = False

    def __init__(
        self, make_neuron: Callable[[], Any], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        config = self.config
        dim = config.dim
        self.patches = Patches(make_neuron, input_shape[0], dim, config.patch_size, config.pool_first)
        num_tokens = num_patches(input_shape, config.patch_size)
        blocks = []
        for _ in range(config.depth):
            attention = SpikingSelfAttention(make_neuron, dim, config.heads, config.attention_scale, num_tokens)
            blocks.append(Block(attention, MLP(make_neuron, dim, dim * config.mlp_ratio)))
        self.blocks = torch.nn.Sequential(*blocks)
        self.classifier = nn.Linear(dim, num_outputs)
        initialize(self)

    def _tokens(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.blocks(self.patches(x))
        return tokens

    def import_weights(self, source: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The `state_dict` of this net from tensors of SpikingJelly's Spikformer; the names are in `keys`.

        Raises:
            ConversionError: another source, a net with spikes pooled (theirs pools currents), or other tensors.
        """
        if source not in self.weight_sources:
            known = ", ".join(self.weight_sources)
            raise ConversionError(f"{type(self).__name__} reads no weights of {source!r} (sources: {known})")
        return import_spikformer(self, tensors)


def _imagenet(parameters: int, macs: int) -> ModelInfo:
    return ModelInfo(parameters, macs, (3, 224, 224), 1000, REFERENCE)


def _cifar(parameters: int, macs: int) -> ModelInfo:
    return ModelInfo(parameters, macs, (3, 32, 32), 10, REFERENCE)


class Spikformer8x384(Spikformer):
    """Spikformer-8-384 for ImageNet; see `Spikformer`."""

    info = _imagenet(parameters=16_797_592, macs=4_699_266_048)

    @dataclass(frozen=True)
    class Config(Spikformer.Config):
        """As `Spikformer`, of this size."""

        dim: Annotated[int, Range(ge=8)] = 384
        heads: Annotated[int, Range(ge=1)] = 12


class Spikformer6x512(Spikformer):
    """Spikformer-6-512 for ImageNet; see `Spikformer`."""

    info = _imagenet(parameters=23_354_920, macs=7_100_616_704)

    @dataclass(frozen=True)
    class Config(Spikformer.Config):
        """As `Spikformer`, of this size."""

        depth: Annotated[int, Range(ge=1)] = 6


class Spikformer8x512(Spikformer):
    """Spikformer-8-512 for ImageNet; see `Spikformer`."""

    info = _imagenet(parameters=29_664_808, macs=8_359_432_192)


class Spikformer10x512(Spikformer):
    """Spikformer-10-512 for ImageNet; see `Spikformer`."""

    info = _imagenet(parameters=35_974_696, macs=9_618_247_680)

    @dataclass(frozen=True)
    class Config(Spikformer.Config):
        """As `Spikformer`, of this size."""

        depth: Annotated[int, Range(ge=1)] = 10


class Spikformer8x768(Spikformer):
    """Spikformer-8-768 for ImageNet; see `Spikformer`."""

    info = _imagenet(parameters=66_301_768, macs=18_666_240_000)

    @dataclass(frozen=True)
    class Config(Spikformer.Config):
        """As `Spikformer`, of this size."""

        dim: Annotated[int, Range(ge=8)] = 768
        heads: Annotated[int, Range(ge=1)] = 12


class Spikformer2x384(Spikformer):
    """Spikformer-2-384 for CIFAR, with patches of 4; see `Spikformer`."""

    capabilities = ModelCapabilities(min_input_size=4, input_rank=3)
    info = _cifar(parameters=5_758_138, macs=698_109_696)

    @dataclass(frozen=True)
    class Config(Spikformer.Config):
        """As `Spikformer`, of this size."""

        depth: Annotated[int, Range(ge=1)] = 2
        dim: Annotated[int, Range(ge=8)] = 384
        heads: Annotated[int, Range(ge=1)] = 12
        patch_size: Literal[2, 4, 8, 16] = 4


class Spikformer4x256(Spikformer):
    """Spikformer-4-256 for CIFAR, with patches of 4; see `Spikformer`."""

    capabilities = ModelCapabilities(min_input_size=4, input_rank=3)
    info = _cifar(parameters=4_145_962, macs=414_026_240)

    @dataclass(frozen=True)
    class Config(Spikformer.Config):
        """As `Spikformer`, of this size."""

        depth: Annotated[int, Range(ge=1)] = 4
        dim: Annotated[int, Range(ge=8)] = 256
        patch_size: Literal[2, 4, 8, 16] = 4


class Spikformer4x384(Spikformer):
    """Spikformer-4-384 for CIFAR, with patches of 4; see `Spikformer`."""

    capabilities = ModelCapabilities(min_input_size=4, input_rank=3)
    info = _cifar(parameters=9_310_906, macs=927_747_840)

    @dataclass(frozen=True)
    class Config(Spikformer.Config):
        """As `Spikformer`, of this size."""

        depth: Annotated[int, Range(ge=1)] = 4
        dim: Annotated[int, Range(ge=8)] = 384
        heads: Annotated[int, Range(ge=1)] = 12
        patch_size: Literal[2, 4, 8, 16] = 4


class Spikformer2x256(Spikformer):
    """Spikformer-2-256 for event data, 128² in two polarities; see `Spikformer`."""

    info = ModelInfo(2_563_594, 376_441_344, (2, 128, 128), 10, REFERENCE)

    @dataclass(frozen=True)
    class Config(Spikformer.Config):
        """As `Spikformer`, of this size."""

        depth: Annotated[int, Range(ge=1)] = 2
        dim: Annotated[int, Range(ge=8)] = 256


class SpikformerTi(Spikformer):
    """SpikingJelly's `spikformer_ti`; see `Spikformer`."""

    info = _imagenet(parameters=4_400_392, macs=1_482_254_336)

    @dataclass(frozen=True)
    class Config(Spikformer.Config):
        """As `Spikformer`, of this size."""

        depth: Annotated[int, Range(ge=1)] = 4
        dim: Annotated[int, Range(ge=8)] = 256
        pool_first: bool = True


class SpikformerS(Spikformer):
    """SpikingJelly's `spikformer_s`; see `Spikformer`."""

    info = _imagenet(parameters=13_244_824, macs=3_995_999_232)

    @dataclass(frozen=True)
    class Config(Spikformer.Config):
        """As `Spikformer`, of this size."""

        depth: Annotated[int, Range(ge=1)] = 6
        dim: Annotated[int, Range(ge=8)] = 384
        heads: Annotated[int, Range(ge=1)] = 12
        pool_first: bool = True
