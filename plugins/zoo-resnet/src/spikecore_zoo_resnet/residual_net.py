"""Base of the three families: stem, four stages of blocks, mean over the image, classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from spikecore import nn
from spikecore.errors import ConversionError
from spikecore.interfaces import ModelCapabilities, Range
from spikecore_zoo_resnet.keys import import_tensors
from spikecore_zoo_resnet.parts import MakeNeuron, initialize
from spikecore_zoo_resnet.plans import PUBLISHED_WIDTH, STAGE_FACTORS, Plan

SMALLEST = {"imagenet": 32, "small": 8}
"""Stem → smallest height and width: one pixel for each stride of two."""


class ResidualNet(nn.Model):
    """`[T, B, C, H, W]` → `[T, B, num_outputs]`; without T in single-step mode.

    Subclasses build the stem, the blocks and what comes after them. `forward_features` gives what the classifier
    takes; `spikecore.nn.features(net, names)` gives the values of any layers by name.
    """

    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities(min_input_size=32, input_rank=3)
    plan: ClassVar[Plan]
    layer1: torch.nn.Sequential
    layer2: torch.nn.Sequential
    layer3: torch.nn.Sequential
    layer4: torch.nn.Sequential

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            width: planes of the first stage; the later ones have 2, 4 and 8 times as many.
            stem: `imagenet` takes images from 32², which it divides by four before the first stage (7×7 convolution of
                stride 2, and as much again); `small` takes images from 8² and keeps their size (3×3 convolution).
            replace_stride_with_dilation: whether the second, third and fourth stage keep the size of their images and
                dilate the 3×3 convolutions of their blocks instead; for dense prediction. Blocks of three convolutions
                only, as in torchvision.
            zero_init_residual: begin with norms of weight 0 at the end of the residual branches, so that every block
                begins as its shortcut.
        """

        width: Annotated[int, Range(ge=1)] = PUBLISHED_WIDTH
        stem: Literal["imagenet", "small"] = "imagenet"
        replace_stride_with_dilation: tuple[bool, bool, bool] = (False, False, False)
        zero_init_residual: bool = False

    def __init__(
        self, make_neuron: Callable[[], Any], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        width = self.config.width
        self._build_stem(make_neuron, input_shape[0], width)
        channels, dilation = width, 1
        for stage, (factor, depth) in enumerate(zip(STAGE_FACTORS, self.plan.depths, strict=True), 1):
            blocks: list[torch.nn.Module] = []
            stride, dilation_of_first = self._stride(stage), dilation
            if stage > 1 and self.config.replace_stride_with_dilation[stage - 2]:
                dilation, stride = dilation * stride, 1
            for index in range(depth):
                place = (stride, dilation_of_first) if index == 0 else (1, dilation)
                blocks.append(self._make_block(make_neuron, channels, width * factor, *place))
                channels = width * factor * self.plan.expansion
            self.add_module(f"layer{stage}", torch.nn.Sequential(*blocks))
        self._build_end(make_neuron)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_outputs)
        initialize(self, self._last_norms() if self.config.zero_init_residual else [])

    @classmethod
    def option_problems(cls, config: Any) -> list[tuple[str, str]]:
        """A width that leaves a group without channels; dilation where blocks have two convolutions."""
        problems = []
        if cls.plan.inner_channels(config.width) < 1:
            smallest = -(-PUBLISHED_WIDTH // cls.plan.width_per_group)
            problems.append(
                ("width", f"expected at least {smallest}, so that each group has a channel, got {config.width}")
            )
        option = "replace_stride_with_dilation"
        dilated = getattr(config, option)
        if any(dilated) and not cls.plan.is_bottleneck:
            problems.append(
                (option, f"expected false three times, got {dilated}: blocks of two convolutions have none")
            )
        return problems

    def smallest_input(self) -> int:
        """By the stem."""
        return SMALLEST[self.config.stem]

    def _build_stem(self, make_neuron: MakeNeuron, in_channels: int, width: int) -> None:
        raise NotImplementedError

    def _make_block(
        self, make_neuron: MakeNeuron, in_channels: int, planes: int, stride: int, dilation: int
    ) -> torch.nn.Module:
        raise NotImplementedError

    def _stride(self, stage: int) -> int:
        """Of the first block of a stage."""
        return 1 if stage == 1 else 2

    def _build_end(self, make_neuron: MakeNeuron) -> None:
        """What stands between the last block and the mean over the image: nothing, unless a family has something."""

    def _last_norms(self) -> list[torch.nn.Module]:
        stages = [self.get_submodule(f"layer{stage}") for stage in range(1, len(STAGE_FACTORS) + 1)]
        last = f"conv{3 if self.plan.is_bottleneck else 2}.norm"
        return [block.get_submodule(last) for stage in stages for block in stage.children()]

    def _stem_and_stages(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward_features(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → what the classifier takes, `[T, B, features]`; without T in single-step mode."""
        features: Tensor = self.pool(self._stem_and_stages(x))
        return features.flatten(-3)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → `[T, B, num_outputs]`; without T in single-step mode."""
        out: Tensor = self.classifier(self.forward_features(x))
        return out

    def import_weights(self, source: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The `state_dict` of this net from tensors of torchvision or SpikingJelly; the names are in `keys`.

        Raises:
            ConversionError: this family reads no weights of `source`, or the tensors are not those of a residual net.
        """
        if source not in self.weight_sources:
            known = ", ".join(self.weight_sources) or "none"
            raise ConversionError(f"{type(self).__name__} reads no weights of {source!r} (sources: {known})")
        return import_tensors(self, tensors)
