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
class SpikeProduct:
    """What a backend says to one product: the result, or why it should run densely.

    Args:
        y: the output with the bias, in the memory format of x; None: run this call densely.
        kept: what `product_grad` will need of the input, such as its bits.
        rate: the share of ones in x, where they were counted.
        crossover: the rate above which the backend runs such a product densely, where it knows one.
        reason: why it runs densely, or what decided for events.
    """

    y: Tensor | None
    kept: list[Tensor] = field(default_factory=list)
    rate: float | None = None
    crossover: float | None = None
    reason: str = ""
