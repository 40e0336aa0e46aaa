"""QKFormer: three stages of tokens, ever fewer and wider; Q-K attention in the first two, self-attention in the last.

    patches      between stages: (convolution 3×3 → norm → max pooling → neuron → convolution 3×3 → norm → neuron)
                 + (convolution 1×1 of stride 2 → norm → neuron)
    blocks       x + attention(x), then x + MLP(x): counts of spikes
    classifier   linear, of the mean over the tokens

Where a neuron follows its norm directly the layer is a `ConvBNNeuron`; where the pooling stands between them it cannot
be. What the paper leaves open (channels inside the first patches, where pooling stands, heads) is as in the authors'
nets, without the biases that norms make useless.

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
from spikecore_zoo_transformer.parts import MakeNeuron, halving, image_block, image_conv_bn, initialize, num_patches
from spikecore_zoo_transformer.token_net import MLP, Block, TokenNet

REFERENCE = (
    "Zhou et al. 2024, QKFormer: Hierarchical Spiking Transformer using Q-K Attention, https://arxiv.org/abs/2403.16552"
)
NUM_STAGES = 3


class PooledConv(torch.nn.Module):
    """Convolution, norm, max pooling, neuron; the pooling is left out where the size stays.

    Args:
        make_neuron: called once.
        in_channels, out_channels: of the convolution.
        stride: 1 or 2.
    """

    def __init__(self, make_neuron: MakeNeuron, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = image_conv_bn(in_channels, out_channels)
        self.pool = halving() if stride == 2 else torch.nn.Identity()
        self.neuron = make_neuron()

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → spikes; without T in single-step mode."""
        out: Tensor = self.neuron(self.pool(self.conv1(x)))
        return out


class ShortcutPatches(torch.nn.Module):
    """To fewer and wider patches, with a shortcut.

    Args:
        make_neuron: called for each of the neuron layers: three, or two where there is one convolution.
        in_channels, out_channels: of the maps.
        stride: 1 or 2.
        num_convs: beside the shortcut's, 1 or 2.
        pools_late: the pooling stands behind the last convolution and not the first.
    """

    def __init__(
        self,
        make_neuron: MakeNeuron,
        in_channels: int,
        out_channels: int,
        stride: int,
        num_convs: int = 2,
        pools_late: bool = False,
    ) -> None:
        super().__init__()
        layers: list[torch.nn.Module]
        if num_convs == 2 and pools_late:
            layers = [image_block(make_neuron, in_channels, out_channels)]
            layers.append(PooledConv(make_neuron, out_channels, out_channels, stride))
        else:
            layers = [PooledConv(make_neuron, in_channels, out_channels, stride)]
            if num_convs == 2:
                layers.append(image_block(make_neuron, out_channels, out_channels))
        self.convs = torch.nn.Sequential(*layers)
        shortcut = torch.nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        self.shortcut = nn.ConvBNNeuron(shortcut, torch.nn.BatchNorm2d(out_channels), make_neuron())

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → counts; without T in single-step mode."""
        out: Tensor = self.convs(x) + self.shortcut(x)
        return out


class Stage(torch.nn.Module):
    """Patches, and blocks over them as tokens.

    Args:
        patches: images to images.
        blocks: over tokens.
    """

    def __init__(self, patches: torch.nn.Module, blocks: torch.nn.Sequential) -> None:
        super().__init__()
        self.patches, self.blocks = patches, blocks

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → counts; without T in single-step mode."""
        x = self.patches(x)
        tokens: Tensor = self.blocks(x.flatten(-2))
        return torch.unflatten(tokens, -1, x.shape[-2:])


class QKFormer(TokenNet):
    """Base of the sizes; see the module."""

    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities(min_input_size=16, input_rank=3)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            depths: number of blocks in each of the three stages.
            dim: channels of a token in the last stage; the first two have a quarter and a half of it.
            heads: of every attention; divides `dim / 4`.
            mlp_ratio: channels inside the MLP, as a multiple of the stage's.
            first_patch: height and width, in pixels, of a token of the first stage; the later ones are twice and four
                times as high and wide.
            attention_scale: of Q Kᵀ V in the last stage; 0.125 for a threshold of 0.5 is 0.25 for one of 1.
            mask_scale: of the sums of queries in the first two; 1 for the authors' threshold of 0.5 is 2 for one of 1.
            mask_over: what a mask of the first two stages chooses: `tokens` of a head, or `channels`.
            small_patches: as in the authors' net for CIFAR: one convolution in the first patches, and in the others
                pooling behind the second convolution, not the first.
        """

        depths: Annotated[tuple[int, int, int], Range(ge=0)] = (1, 2, 7)
        dim: Annotated[int, Range(ge=8)] = 384
        heads: Annotated[int, Range(ge=1)] = 6
        mlp_ratio: Annotated[int, Range(ge=1)] = 4
        first_patch: Literal[1, 2, 4] = 4
        attention_scale: Annotated[float, Range(gt=0.0)] = 0.25
        mask_scale: Annotated[float, Range(gt=0.0)] = 2.0
        mask_over: Literal["tokens", "channels"] = "tokens"
        small_patches: bool = False

    def __init__(
        self, make_neuron: Callable[[], Any], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        config = self.config
        dim = config.dim
        strides = {1: (1, 1), 2: (1, 2), 4: (2, 2)}[config.first_patch]
        self.stem = PooledConv(make_neuron, input_shape[0], dim // 8, strides[0])
        stages = []
        channels = dim // 8
        for index, depth in enumerate(config.depths):
            out = dim // 2 ** (NUM_STAGES - 1 - index)
            is_last = index == NUM_STAGES - 1
            blocks = []
            for _ in range(depth):
                attention: torch.nn.Module
                if is_last:
                    num_tokens = num_patches(input_shape, 4 * config.first_patch)
                    attention = SpikingSelfAttention(make_neuron, out, config.heads, config.attention_scale, num_tokens)
                else:
                    attention = QKAttention(make_neuron, out, config.heads, config.mask_scale, config.mask_over)
                blocks.append(Block(attention, MLP(make_neuron, out, out * config.mlp_ratio)))
            stride = strides[1] if index == 0 else 2
            num_convs = 1 if index == 0 and config.small_patches else 2
            patches = ShortcutPatches(make_neuron, channels, out, stride, num_convs, config.small_patches)
            stages.append(Stage(patches, torch.nn.Sequential(*blocks)))
            channels = out
        self.stages = torch.nn.Sequential(*stages)
        self.classifier = nn.Linear(dim, num_outputs)
        initialize(self)

    @classmethod
    def option_problems(cls, config: Any) -> list[tuple[str, str]]:
        """Heads that do not divide the channels of the first stage, and channels that cannot be halved three times."""
        if config.dim % 8:
            return [("dim", f"expected a multiple of 8, got {config.dim}")]
        if config.dim // 4 % config.heads:
            return [("heads", f"expected a divisor of dim / 4 = {config.dim // 4}, got {config.heads}")]
        return []

    def smallest_input(self) -> int:
        """One token in the last stage."""
        return 4 * int(self.config.first_patch)

    def _tokens(self, x: Tensor) -> Tensor:
        images: Tensor = self.stages(self.stem(x))
        return images.flatten(-2)


def _imagenet(parameters: int, macs: int) -> ModelInfo:
    return ModelInfo(parameters, macs, (3, 224, 224), 1000, REFERENCE)


class QKFormer10x384(QKFormer):
    """QKFormer HST-10-384 for ImageNet; see `QKFormer`."""

    info = _imagenet(parameters=16_454_680, macs=5_898_673_152)


class QKFormer10x512(QKFormer):
    """QKFormer HST-10-512 for ImageNet; see `QKFormer`."""

    info = _imagenet(parameters=29_053_992, macs=10_427_486_208)

    @dataclass(frozen=True)
    class Config(QKFormer.Config):
        """As `QKFormer`, of this size."""

        dim: Annotated[int, Range(ge=8)] = 512
        heads: Annotated[int, Range(ge=1)] = 8


class QKFormer10x768(QKFormer):
    """QKFormer HST-10-768 for ImageNet; see `QKFormer`."""

    info = _imagenet(parameters=64_924_744, macs=23_328_995_328)

    @dataclass(frozen=True)
    class Config(QKFormer.Config):
        """As `QKFormer`, of this size."""

        dim: Annotated[int, Range(ge=8)] = 768
        heads: Annotated[int, Range(ge=1)] = 12


class QKFormer4x384(QKFormer):
    """QKFormer HST-4-384 for CIFAR, whose first tokens are pixels; see `QKFormer`."""

    capabilities = ModelCapabilities(min_input_size=4, input_rank=3)
    info = ModelInfo(6_699_898, 1_515_998_976, (3, 32, 32), 10, REFERENCE)

    @dataclass(frozen=True)
    class Config(QKFormer.Config):
        """As `QKFormer`, of this size."""

        depths: Annotated[tuple[int, int, int], Range(ge=0)] = (1, 1, 2)
        heads: Annotated[int, Range(ge=1)] = 8
        first_patch: Literal[1, 2, 4] = 1
        small_patches: bool = True
