"""The sizes of residual nets: how many blocks of which kind."""

from __future__ import annotations

from dataclasses import dataclass

STAGE_FACTORS = (1, 2, 4, 8)
"""Planes of a stage, as multiples of those of the first."""
PUBLISHED_WIDTH = 64
"""Planes of the first stage in every published size."""


@dataclass(frozen=True)
class Plan:
    """A size.

    Args:
        depths: blocks of each of the four stages.
        is_bottleneck: blocks of three convolutions (1×1, 3×3, 1×1) that give four times their planes; else two of 3×3.
        groups: of the 3×3 convolution of a bottleneck.
        width_per_group: of that convolution, for 64 planes.
    """

    depths: tuple[int, int, int, int]
    is_bottleneck: bool = False
    groups: int = 1
    width_per_group: int = 64

    @property
    def expansion(self) -> int:
        """Channels that a block gives, as a multiple of its planes."""
        return 4 if self.is_bottleneck else 1

    def inner_channels(self, planes: int) -> int:
        """Channels between the convolutions of a block."""
        return planes * self.width_per_group // PUBLISHED_WIDTH * self.groups


RESNET18 = Plan((2, 2, 2, 2))
RESNET34 = Plan((3, 4, 6, 3))
RESNET50 = Plan((3, 4, 6, 3), is_bottleneck=True)
RESNET101 = Plan((3, 4, 23, 3), is_bottleneck=True)
RESNET152 = Plan((3, 8, 36, 3), is_bottleneck=True)
RESNEXT50_32X4D = Plan((3, 4, 6, 3), is_bottleneck=True, groups=32, width_per_group=4)
RESNEXT101_32X8D = Plan((3, 4, 23, 3), is_bottleneck=True, groups=32, width_per_group=8)
WIDE_RESNET50_2 = Plan((3, 4, 6, 3), is_bottleneck=True, width_per_group=128)
WIDE_RESNET101_2 = Plan((3, 4, 23, 3), is_bottleneck=True, width_per_group=128)
RESNET104 = Plan((3, 8, 32, 8))
