"""The VGG nets of OTTT: standardised weights in the place of norms, so that no statistics go across steps.

    block        ŵ-convolution 3×3 → neuron → · 2.74             ŵ: mean 0 and variance 1 / fan-in, times a learned gain
    vggws        64-128-AP-256-256-AP-512-512-AP-512-512 → mean over the image → linear       AP: mean pooling 2×2
    vgg*_ws      VGG-11 to VGG-19 of such blocks, with their max pooling and two inner layers
    vgg*         the same with plain weights and no factor

Online training through time needs neurons that keep a trace, and single-step mode; the nets take any neuron. A neuron
follows standardised weights without a norm, so these blocks are no `ConvBNNeuron`.

Source: Xiao et al. 2022, Online Training Through Time for Spiking Neural Networks, https://arxiv.org/abs/2210.04195;
the factor from Brock et al. 2021, https://arxiv.org/abs/2101.08692.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from spikecore import nn
from spikecore.interfaces import ModelCapabilities, ModelInfo, Range
from spikecore_zoo_vgg.plain_net import PlainNet, initialize, numbered
from spikecore_zoo_vgg.vgg import DEPTHS, STAGE_FACTORS

REFERENCE = (
    "Xiao et al. 2022, Online Training Through Time for Spiking Neural Networks, https://arxiv.org/abs/2210.04195"
)
SCALE = 2.74
"""Times a spike, so that the next current has a variance near 1."""
VGGWS_FACTORS = ((1, 2), (4, 4), (8, 8), (8, 8))
"""Channels of each convolution, as multiples of those of the first."""


class Scale(torch.nn.Module):
    """Spikes, times a fixed factor."""

    def forward(self, spikes: Tensor) -> Tensor:
        """Of any shape."""
        return spikes * SCALE


class StandardizedConvNeuron(torch.nn.Module):
    """Convolution of standardised weights, neuron, factor."""

    def __init__(self, make_neuron: Callable[[], Any], in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.WSConv2d(in_channels, out_channels, 3, padding=1)
        self.neuron = make_neuron()
        self.scale = Scale()

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]`; without T in single-step mode."""
        out: Tensor = self.scale(self.neuron(self.conv(x)))
        return out


class _StandardizedNet(PlainNet):
    """A net that may have standardised weights.

    SpikingJelly divides by the sample variance (N - 1), we and the paper by that of the population (N). Both give
    equal outputs when the gain makes up for it, which `import_weights` sees to; N is the fan-in:

        g' = g · sqrt((N · var + eps) / (N · var · N / (N - 1) + eps))
    """

    weight_sources: ClassVar[tuple[str, ...]] = ("spikingjelly",)

    def _begin_gains(self, value: float) -> None:
        for part in self.modules():
            if isinstance(part, nn.WSConv2d | nn.WSLinear) and part.gain is not None:
                torch.nn.init.constant_(part.gain, value)

    def import_weights(self, source: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As in `PlainNet`, with gains for the population's variance."""
        state = super().import_weights(source, tensors)
        for name, part in self.named_modules():
            weight, gain = state.get(f"{name}.weight"), state.get(f"{name}.gain")
            if not isinstance(part, nn.WSConv2d | nn.WSLinear) or weight is None or gain is None:
                continue
            fan_in = weight[0].numel()
            sum_of_squares = fan_in * weight.flatten(1).var(1, correction=0).reshape(gain.shape)
            sampled = sum_of_squares * fan_in / (fan_in - 1)
            state[f"{name}.gain"] = gain * torch.sqrt((sum_of_squares + part.eps) / (sampled + part.eps))
        return state


class OTTTSpikingVGGWS(_StandardizedNet):
    """The net for CIFAR-10 and CIFAR-100, with one linear layer."""

    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities(min_input_size=8, input_rank=3)
    info: ClassVar[ModelInfo] = ModelInfo(9_228_362, 605_754_368, (3, 32, 32), 10, REFERENCE)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            width: channels of the first convolution; the others have 2, 4 and 8 times as many.
            gain: first value of the learned factors of standardised weights. Our choice: with the paper's 1 and
                LIF (tau 2, threshold 1) an untrained net has no spike from the third layer on, with 3 every layer fires
                in 11 to 30 % of the steps (`tests/test_nets.py`). Weights of others bring their own factors.
        """

        width: Annotated[int, Range(ge=1)] = 64
        gain: Annotated[float, Range(gt=0.0)] = 3.0

    def __init__(
        self, make_neuron: Callable[[], Any], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        layers: list[torch.nn.Module] = []
        channels = input_shape[0]
        for stage, factors in enumerate(VGGWS_FACTORS):
            if stage:
                layers.append(nn.AvgPool2d(2))
            for factor in factors:
                layers.append(StandardizedConvNeuron(make_neuron, channels, self.config.width * factor))
                channels = self.config.width * factor
        self.features = torch.nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.classifier = torch.nn.Sequential(nn.Linear(channels, num_outputs))
        initialize(self)
        self._begin_gains(self.config.gain)

    def their_names(self, source: str) -> dict[str, str]:
        """Theirs begin the classifier with the mean over the image and the flattening."""
        return {**_names_of_blocks(self.features), "classifier.0": "classifier.2"}


class OTTTSpikingVGG(_StandardizedNet):
    """Base of the eight nets with two inner layers; see the module."""

    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities(min_input_size=32, input_rank=3)
    depths: ClassVar[tuple[int, ...]]
    is_standardized: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            width: channels of the first stage; the later ones have 2, 4, 8 and 8 times as many.
            grid: height and width of what the classifier takes.
            hidden: width of its two inner layers.
            dropout: probability behind each of these.
        """

        width: Annotated[int, Range(ge=1)] = 64
        grid: Annotated[int, Range(ge=1)] = 7
        hidden: Annotated[int, Range(ge=1)] = 4096
        dropout: Annotated[float, Range(ge=0.0, lt=1.0)] = 0.5

    def __init__(
        self, make_neuron: Callable[[], Any], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        layers: list[torch.nn.Module] = []
        channels = input_shape[0]
        for multiple, depth in zip(STAGE_FACTORS, self.depths, strict=True):
            for _ in range(depth):
                layers.append(self._make_block(make_neuron, channels, self.config.width * multiple))
                channels = self.config.width * multiple
            layers.append(nn.MaxPool2d(2))
        hidden, grid = self.config.hidden, self.config.grid
        self.features = torch.nn.Sequential(*layers, nn.AdaptiveAvgPool2d(grid))
        inner, factor = (nn.WSLinear, Scale) if self.is_standardized else (nn.Linear, torch.nn.Identity)
        self.classifier = torch.nn.Sequential(
            inner(channels * grid * grid, hidden),
            make_neuron(),
            factor(),
            nn.Dropout(self.config.dropout),
            inner(hidden, hidden),
            make_neuron(),
            factor(),
            nn.Dropout(self.config.dropout),
            nn.Linear(hidden, num_outputs),
        )
        initialize(self, has_norms=self.is_standardized)

    def _make_block(self, make_neuron: Callable[[], Any], in_channels: int, out_channels: int) -> torch.nn.Module:
        if self.is_standardized:
            return StandardizedConvNeuron(make_neuron, in_channels, out_channels)
        conv = torch.nn.Conv2d(in_channels, out_channels, 3, padding=1)
        return nn.ConvBNNeuron(conv, torch.nn.Identity(), make_neuron())

    def their_names(self, source: str) -> dict[str, str]:
        """Theirs begin the classifier with the mean over the grid and the flattening."""
        names = _names_of_blocks(self.features)
        for index in (0, 1, 4, 5, 8):
            names[f"classifier.{index}"] = f"classifier.{index + 2}"
        return names


class OTTTSpikingVGGOfWS(OTTTSpikingVGG):
    """Base of the four with standardised weights."""

    is_standardized = True

    @dataclass(frozen=True)
    class Config(OTTTSpikingVGG.Config):
        """
        Args:
            gain: first value of the learned factors of standardised weights; see `OTTTSpikingVGGWS`.
        """

        gain: Annotated[float, Range(gt=0.0)] = 3.0

    def __init__(
        self, make_neuron: Callable[[], Any], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        self._begin_gains(self.config.gain)


def _names_of_blocks(features: torch.nn.Sequential) -> dict[str, str]:
    """Our names of convolutions and neurons → theirs; a factor counts as a layer behind the neuron."""
    names = {}
    for block, number in numbered(features, {"StandardizedConvNeuron": 3, "ConvBNNeuron": 2}):
        if isinstance(features.get_submodule(block), StandardizedConvNeuron | nn.ConvBNNeuron):
            names[f"features.{block}.conv"] = f"features.{number}"
            names[f"features.{block}.neuron"] = f"features.{number + 1}"
    return names


def _info(parameters: int, macs: int) -> ModelInfo:
    return ModelInfo(parameters, macs, (3, 224, 224), 1000, REFERENCE)


class OTTTSpikingVGG11(OTTTSpikingVGG):
    """VGG-11 with plain weights."""

    depths = DEPTHS[11]
    info = _info(parameters=132_863_336, macs=7_609_090_048)


class OTTTSpikingVGG11WS(OTTTSpikingVGGOfWS):
    """VGG-11 with standardised weights."""

    depths = DEPTHS[11]
    info = _info(parameters=132_874_280, macs=7_609_090_048)


class OTTTSpikingVGG13(OTTTSpikingVGG):
    """VGG-13 with plain weights."""

    depths = DEPTHS[13]
    info = _info(parameters=133_047_848, macs=11_308_466_176)


class OTTTSpikingVGG13WS(OTTTSpikingVGGOfWS):
    """VGG-13 with standardised weights."""

    depths = DEPTHS[13]
    info = _info(parameters=133_058_984, macs=11_308_466_176)


class OTTTSpikingVGG16(OTTTSpikingVGG):
    """VGG-16 with plain weights."""

    depths = DEPTHS[16]
    info = _info(parameters=138_357_544, macs=15_470_264_320)


class OTTTSpikingVGG16WS(OTTTSpikingVGGOfWS):
    """VGG-16 with standardised weights."""

    depths = DEPTHS[16]
    info = _info(parameters=138_369_960, macs=15_470_264_320)


class OTTTSpikingVGG19(OTTTSpikingVGG):
    """VGG-19 with plain weights."""

    depths = DEPTHS[19]
    info = _info(parameters=143_667_240, macs=19_632_062_464)


class OTTTSpikingVGG19WS(OTTTSpikingVGGOfWS):
    """VGG-19 with standardised weights."""

    depths = DEPTHS[19]
    info = _info(parameters=143_680_936, macs=19_632_062_464)
