"""Layers whose input may be spikes: which of them run by events, and what is known of their last call."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from spikecore.backends.products import MODES, ProductChoice, product
from spikecore.errors import OptionError
from spikecore.interfaces.products import LINEAR, ProductGeometry, ProductMode
from spikecore.torch_internals import convolves_itself


class SpikeLayer(nn.Module):
    """Mixin of `Conv2d`, `Linear` and the blocks: `products` chooses how they multiply.

    Args:
        products: `auto`: by events where the input is 0 and 1 and events are faster; `event`: by events whenever the
            input is 0 and 1; `dense`: never. What a backend does not offer runs densely; `explain` gives the reason.
        half_gradient: compute the gradient of the input in bfloat16 where the product ran by events.

    Attributes:
        product: how the last call ran; None before the first one and within torch.compile.
    """

    products: ProductMode = "auto"
    half_gradient: bool = False
    product: ProductChoice | None = None

    def __init__(self, *args: Any, products: str = "auto", half_gradient: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.products = checked_mode(products)
        self.half_gradient = half_gradient

    def extra_repr(self) -> str:
        own = super().extra_repr()
        mode = "" if self.products == "auto" else f"products={self.products!r}"
        half = "half_gradient=True" if self.half_gradient else ""
        return ", ".join(part for part in (own, mode, half) if part)

    def multiply(self, layer: nn.Module, x: Tensor) -> Tensor:
        """What `layer`, an `nn.Conv2d` or `nn.Linear`, gives for x `[N, C, H, W]` or `[..., C]`."""
        weight = cast(Tensor, layer.weight)
        bias = cast("Tensor | None", layer.bias)
        geometry = geometry_of(layer)
        assert geometry is not None
        y, choice = product(self.products, geometry, x, weight, bias, self.half_gradient)
        if choice is not None:
            self.product = choice
        return y


class EventConv2d(SpikeLayer):
    """Mixin in front of `torch.nn.Conv2d`."""

    def forward(self, input: Tensor) -> Tensor:
        assert isinstance(self, nn.Conv2d)
        if convolves_itself(self) or geometry_of(self) is None:
            self.product = ProductChoice("dense", "torch", NO_GEOMETRY)
            return cast(Tensor, super().forward(input))
        return self.multiply(self, input)


class EventLinear(SpikeLayer):
    """Mixin in front of `torch.nn.Linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return self.multiply(self, input)


NO_GEOMETRY = "its padding is not a number of zeros, or its forward pass is its own"


def checked_mode(products: str) -> ProductMode:
    """The mode, if there is one of this name.

    Raises:
        OptionError: there is none.
    """
    for mode in MODES:
        if mode == products:
            return mode
    raise OptionError(f"products must be {', '.join(map(repr, MODES[:-1]))} or {MODES[-1]!r}, got {products!r}")


def geometry_of(layer: nn.Module) -> ProductGeometry | None:
    """How a convolution or linear layer multiplies; None where no backend is asked.

    That is: other layers, padding with anything but zeros, and "same" padding that differs between the two sides.
    """
    if isinstance(layer, nn.Linear):
        return LINEAR
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros":
        return None
    padding: tuple[int, ...] | None
    padding = _padding_of(layer, layer.padding) if isinstance(layer.padding, str) else layer.padding
    if padding is None:
        return None
    return ProductGeometry("conv2d", _pair(layer.stride), _pair(padding), _pair(layer.dilation), layer.groups)


def _padding_of(layer: nn.Conv2d, name: str) -> tuple[int, int] | None:
    """The padding "valid" or "same" in numbers of zeros, for H and W; None where the two sides of an axis differ."""
    if name == "valid":
        return 0, 0
    totals = [dilation * (size - 1) for dilation, size in zip(layer.dilation, layer.kernel_size, strict=True)]
    return None if any(total % 2 for total in totals) else (totals[0] // 2, totals[1] // 2)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return values[0], values[1]


def is_plain_layer(layer: nn.Module) -> bool:
    """Is this torch's own `Conv2d` or `Linear`, unchanged, with a geometry that backends may be asked about?

    Not for subclasses, such as parametrized layers: their forward pass may be another.
    """
    return type(layer) in (nn.Conv2d, nn.Linear) and "forward" not in layer.__dict__ and geometry_of(layer) is not None


def set_products(net: nn.Module, products: str) -> None:
    """Choose how all layers of `net` with `products` multiply; see `Conv2d`.

    Args:
        net: a module.
        products: `auto`, `dense` or `event`.

    Raises:
        OptionError: there is no such mode.
    """
    mode = checked_mode(products)
    for module in net.modules():
        if isinstance(module, SpikeLayer):
            module.products, module.product = mode, None


def explain_products(net: nn.Module) -> list[str]:
    """A line for each layer of `net` that may multiply by events."""
    lines = []
    for name, module in net.named_modules():
        if isinstance(module, SpikeLayer):
            place = f"{name}: " if name else ""
            ran = "has not run yet" if module.product is None else str(module.product)
            lines.append(f"{place}{type(module).__name__} multiplies {module.products!r}: {ran}")
    return lines


__all__ = [
    "EventConv2d",
    "EventLinear",
    "SpikeLayer",
    "checked_mode",
    "explain_products",
    "geometry_of",
    "is_plain_layer",
    "set_products",
]
