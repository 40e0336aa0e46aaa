"""Pooling, unpooling, resampling and flattening over time; arguments are those of the torch layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from spikecore.backends.plain import is_plain
from spikecore.backends.spike_bits import bits_of, note_bits
from spikecore.nn.layers.fold import FoldsTime


class MaxPool1d(FoldsTime, nn.MaxPool1d):
    """`torch.nn.MaxPool1d` over `[T, B, C, L]`; `return_indices=True` adds the indices for `MaxUnpool1d`."""

    ranks = (3,)


class _PoolsBits(nn.Module):
    """Mixin in front of `torch.nn.MaxPool2d`: where the bits of its input are known, so are those of its output."""

    def forward(self, input: Tensor) -> Tensor:
        assert isinstance(self, nn.MaxPool2d)
        out: Tensor = super().forward(input)
        if not isinstance(out, Tensor) or not is_plain((input, out)):
            return out
        bits = bits_of(input, True) if input.dim() == 4 else None
        if bits is not None and pair(self.padding) == (0, 0) and pair(self.dilation) == (1, 1):
            pooled = bits.max_pool(pair(self.kernel_size), pair(self.stride))
            if (pooled.height, pooled.width) == tuple(out.shape[2:]):  # not where the last windows are cut
                note_bits(out, pooled)
        return out


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """An option of a pool or convolution over `[H, W]`, which torch takes as one number or as two, for both axes."""
    if isinstance(value, int):
        return value, value
    return value[0], value[-1]  # torch also takes a sequence of one


class MaxPool2d(FoldsTime, _PoolsBits, nn.MaxPool2d):
    """`torch.nn.MaxPool2d` over `[T, B, C, H, W]`; `return_indices=True` adds the indices for `MaxUnpool2d`."""

    ranks = (4,)


class MaxPool3d(FoldsTime, nn.MaxPool3d):
    """`torch.nn.MaxPool3d` over `[T, B, C, D, H, W]`; `return_indices=True` adds the indices for `MaxUnpool3d`."""

    ranks = (5,)


class MaxUnpool1d(FoldsTime, nn.MaxUnpool1d):
    """`torch.nn.MaxUnpool1d` over `[T, B, C, L]` and its indices; `output_size` is the spatial size."""

    ranks = (3,)


class MaxUnpool2d(FoldsTime, nn.MaxUnpool2d):
    """`torch.nn.MaxUnpool2d` over `[T, B, C, H, W]` and its indices; `output_size` is the spatial size."""

    ranks = (4,)


class MaxUnpool3d(FoldsTime, nn.MaxUnpool3d):
    """`torch.nn.MaxUnpool3d` over `[T, B, C, D, H, W]` and its indices; `output_size` is the spatial size."""

    ranks = (5,)


class AvgPool1d(FoldsTime, nn.AvgPool1d):
    """`torch.nn.AvgPool1d` over `[T, B, C, L]`."""

    ranks = (3,)


class AvgPool2d(FoldsTime, nn.AvgPool2d):
    """`torch.nn.AvgPool2d` over `[T, B, C, H, W]`."""

    ranks = (4,)


class AvgPool3d(FoldsTime, nn.AvgPool3d):
    """`torch.nn.AvgPool3d` over `[T, B, C, D, H, W]`."""

    ranks = (5,)


class SumPool2d(AvgPool2d):
    """Sums over windows of `[T, B, C, H, W]`, as on neuromorphic chips: `AvgPool2d` times the size of the window.

    Args:
        kernel_size, stride, padding, ceil_mode: as of `torch.nn.AvgPool2d`; padding adds zeros.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        ceil_mode: bool = False,
    ) -> None:
        # A divisor of 1: average pooling then is the sum, without a rounding by the size of the window.
        super().__init__(kernel_size, stride, padding, ceil_mode, divisor_override=1)


class AdaptiveMaxPool1d(FoldsTime, nn.AdaptiveMaxPool1d):
    """`torch.nn.AdaptiveMaxPool1d` over `[T, B, C, L]`."""

    ranks = (3,)


class AdaptiveMaxPool2d(FoldsTime, nn.AdaptiveMaxPool2d):
    """`torch.nn.AdaptiveMaxPool2d` over `[T, B, C, H, W]`."""

    ranks = (4,)


class AdaptiveMaxPool3d(FoldsTime, nn.AdaptiveMaxPool3d):
    """`torch.nn.AdaptiveMaxPool3d` over `[T, B, C, D, H, W]`."""

    ranks = (5,)


class AdaptiveAvgPool1d(FoldsTime, nn.AdaptiveAvgPool1d):
    """`torch.nn.AdaptiveAvgPool1d` over `[T, B, C, L]`."""

    ranks = (3,)


class AdaptiveAvgPool2d(FoldsTime, nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d` over `[T, B, C, H, W]`."""

    ranks = (4,)


class AdaptiveAvgPool3d(FoldsTime, nn.AdaptiveAvgPool3d):
    """`torch.nn.AdaptiveAvgPool3d` over `[T, B, C, D, H, W]`."""

    ranks = (5,)


class Upsample(FoldsTime, nn.Upsample):
    """`torch.nn.Upsample` over `[T, B, C, ...]` with one, two or three spatial axes."""

    ranks = (3, 4, 5)


class Flatten(FoldsTime, nn.Flatten):
    """`torch.nn.Flatten` of one step: `[T, B, ...]` → `[T, B, N]`. Axis numbers count from the batch as 0."""

    ranks = range(1, 64)
