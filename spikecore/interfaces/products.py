"""Spike products: convolutions and linear maps whose input is 0 or 1, as backends get and return them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

ProductKind = Literal["conv2d", "linear"]
ProductMode = Literal["auto", "dense", "event"]


@dataclass(frozen=True)
class ProductGeometry:
    """How a product runs over its input, without what the shapes of input and weight say.

    Args:
        kind: `conv2d` takes x `[N, C, H, W]` and a weight `[O, C / groups, K, K]`, `linear` x `[..., C]` and a weight
            `[O, C]`.
        stride, padding, dilation: of a convolution, along H and W; padding adds zeros.
        groups: of a convolution.
    """

    kind: ProductKind
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


LINEAR = ProductGeometry("linear")


@dataclass(frozen=True)
class SpikeBits:
    """Spikes as bits: channel c of a position is bit c % 32 of its word c // 32; unused bits are 0.

    Args:
        words: contiguous int32, positions in the order N, H, W, `num_words` of them for each.
        channels: C.
        height, width: of an image; both 1 for rows.
        count: number of ones, where it is known.
        is_image: `[N, C, H, W]`, not rows `[N, C]`.
    """

    words: Tensor
    channels: int
    height: int = 1
    width: int = 1
    count: int | None = None
    is_image: bool = True

    @property
    def num_images(self) -> int:
        """N: images, or rows."""
        return self.words.numel() // (self.height * self.width * self.num_words)

    @property
    def num_words(self) -> int:
        """Of one position."""
        return -(-self.channels // 32)

    def max_pool(self, kernel: tuple[int, int], stride: tuple[int, int]) -> SpikeBits:
        """Max pooling without padding: the OR of each window."""
        words = self.words.view(self.num_images, self.height, self.width, self.num_words)
        # Rows first: they are long runs in memory, and half of the work is then done.
        for axis in (1, 2):
            words = _or_windows(words, axis, kernel[axis - 1], stride[axis - 1])
        height, width = words.shape[1:3]
        return SpikeBits(words.reshape(-1), self.channels, height, width)

    def floats(self) -> Tensor:
        """Zeros and ones `[N, C, H, W]`, channels last; `[N, C]` for rows."""
        words = self.words.view(self.num_images, self.height, self.width, self.num_words, 1)
        shifts = words.new_tensor(list(range(32)))
        ones = ((words >> shifts) & 1).flatten(-2)[..., : self.channels].float()
        return ones.permute(0, 3, 1, 2) if self.is_image else ones.reshape(self.num_images, self.channels)


def _or_windows(words: Tensor, axis: int, size: int, stride: int) -> Tensor:
    """The OR over windows of one axis; never the memory of `words`."""
    count = (words.shape[axis] - size) // stride + 1
    parts = []
    for first in range(size):
        part = words.movedim(axis, 0)[first : first + (count - 1) * stride + 1 : stride]
        parts.append(part.movedim(0, axis))
    if size == 1:
        return parts[0].clone()
    pooled = parts[0] | parts[1]
    for part in parts[2:]:
        pooled |= part
    return pooled


@dataclass(frozen=True)
class SpikeProduct:
    """What a backend says to one product: the result, or why it should run densely.

    Args:
        y: the output with the bias, in the memory format of x; None: run this call densely.
        kept: what `product_grad` will need of the input, such as its bits.
        rate: the share of ones in x, where they were counted.
        crossover: the rate above which the backend runs such a product densely, where it knows one.
        reason: why it runs densely, or what decided for events.
        by_shape: it runs densely whatever the values of x are, because of shapes and dtypes alone: layers do not ask
            again for such a call.
    """

    y: Tensor | None
    kept: list[Tensor] = field(default_factory=list)
    rate: float | None = None
    crossover: float | None = None
    reason: str = ""
    by_shape: bool = False
