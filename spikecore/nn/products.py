"""Layers whose input may be spikes: which of them run by events, and what is known of their last call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from spikecore.backends.plain import is_plain
from spikecore.backends.products import DENSE, EVENT, MODES, ProductChoice, ProductShape, product
from spikecore.backends.selection import product_backend
from spikecore.errors import OptionError
from spikecore.interfaces.backend import Backend
from spikecore.interfaces.products import LINEAR, ProductGeometry, ProductKind, ProductMode, SpikeBits
from spikecore.torch_internals import convolves_itself, storage_key, version_of


@dataclass(frozen=True)
class PreparedWeight:
    """A prepared weight, and what it was made from."""

    weight: Tensor
    source: tuple[int, int, int]


def bit_backend(kind: str, x: Tensor) -> tuple[str, Backend | None]:
    """The backend that multiplies bits, if there is one: its name and itself."""
    name, backend, _ = product_backend(kind, x.device.type)
    return name, backend if backend is not None and backend.capabilities.spike_bits else None


class SpikeLayer(nn.Module):
    """Mixin of `Conv2d`, `Linear` and the blocks: `products` chooses how they multiply.

    Args:
        products: `auto`: by events where the input is 0 and 1 and events are faster; `event`: by events whenever the
            input is 0 and 1; `dense`: never. What a backend does not offer runs densely; `explain` gives the reason.
        half_gradient: compute the gradient of the input in bfloat16 where the product ran by events.

    Attributes:
        product: how the last call ran; None before the first one and within torch.compile.
    """

    keeps_prepared: bool = False
    """Keep the weight in the order of the backend's kernels, for inference: `optimize` sets this in its copy."""
    _prepared: PreparedWeight | None = None
    _choices: dict[ProductShape | None, ProductChoice] | None = None
    _declined: dict[tuple[Any, ...], ProductChoice] | None = None

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
        if self._may_prepare(x, weight, bias):
            backend = bit_backend(geometry.kind, weight)[1]
            bits = None if backend is None else backend.pack(x)
            y = None if bits is None else self.multiply_bits(layer, bits)
            if y is not None:
                return y
        y, choice = product(self.products, geometry, x, weight, bias, self.half_gradient)
        if choice is not None:
            self.note_choice(choice)
            if choice.by_shape and self.products == "auto":
                self._note_declined(_call_key(geometry.kind, x, weight), choice)
        return y

    def declines(self, kind: ProductKind, layer: nn.Module, x: Tensor) -> bool:
        """Is this a call that runs densely whatever its values are, as an earlier one of its shape was told?

        Small products take microseconds, and so does asking a backend. What is remembered depends on shapes, dtypes and
        the backend, never on values or on the order of calls: a run that is resumed decides alike.
        """
        if self._declined is None or self.products != "auto" or torch.compiler.is_compiling():
            return False
        choice = self._declined.get(_call_key(kind, x, cast(Tensor, layer.weight)))
        if choice is None:
            return False
        if self.product is not choice:
            self.note_choice(choice)
        return True

    def _note_declined(self, key: tuple[Any, ...], choice: ProductChoice) -> None:
        if self._declined is None:
            self._declined = {}
        self._declined[key] = choice
        if len(self._declined) > MOST_SHAPES:
            self._declined.pop(next(iter(self._declined)), None)

    def _may_prepare(self, *tensors: Tensor | None) -> bool:
        if not self.keeps_prepared or self.products == DENSE or self.training or torch.is_grad_enabled():
            return False
        if torch.compiler.is_compiling() or not is_plain(tensors):
            return False
        x = tensors[0]
        return x is not None and x.dim() in (2, 4) and not torch.is_autocast_enabled(x.device.type)

    def multiply_bits(self, layer: nn.Module, bits: SpikeBits) -> Tensor | None:
        """What `layer` gives for spikes that are bits, channels last; None: it must have them as a tensor."""
        geometry = geometry_of(layer)
        weight = cast(Tensor, layer.weight)
        assert geometry is not None
        name, backend = bit_backend(geometry.kind, weight)
        if backend is None or bits.is_image != (geometry.kind == "conv2d"):
            return None
        prepared = self._prepare(backend, geometry, weight)
        if prepared is None:
            return None
        bias = cast("Tensor | None", layer.bias)
        outcome = backend.product_of_bits(geometry, bits, weight, bias, prepared, self.products == EVENT)
        if outcome.y is not None:
            size: tuple[int, ...] = (bits.num_images, bits.channels)
            if bits.is_image:
                size = (*size, bits.height, bits.width)
            shape = ProductShape(geometry, size, tuple(weight.shape), bits.is_image)
            self.note_choice(ProductChoice(EVENT, name, outcome.reason, outcome.rate, outcome.crossover, shape))
        return outcome.y

    def _prepare(self, backend: Backend, geometry: ProductGeometry, weight: Tensor) -> Tensor | None:
        """The prepared weight, made anew where the weight has changed since."""
        if weight.is_inference():
            return backend.prepare(geometry, weight)
        source = (id(backend), storage_key(weight), version_of(weight))
        if self._prepared is None or self._prepared.source != source:
            prepared = backend.prepare(geometry, weight.detach())
            if prepared is None:
                return None
            self._prepared = PreparedWeight(prepared, source)
        return self._prepared.weight

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_prepared": None}  # type: ignore[no-untyped-call]

    def note_choice(self, choice: ProductChoice) -> None:
        """Remember how a call ran: it is the last one now, and the last of its shape."""
        self.product = choice
        if self._choices is None:
            self._choices = {}
        self._choices.pop(choice.shape, None)
        self._choices[choice.shape] = choice
        if len(self._choices) > MOST_SHAPES:
            self._choices.pop(next(iter(self._choices)), None)

    @property
    def choices(self) -> list[ProductChoice]:
        """How the last call of each shape ran, the last one first; of the last few shapes."""
        return list(reversed((self._choices or {}).values()))

    def forget_choices(self) -> None:
        """As before the first call."""
        self.product = self._choices = self._declined = None


class EventConv2d(SpikeLayer):
    """Mixin in front of `torch.nn.Conv2d`."""

    def forward(self, input: Tensor) -> Tensor:
        assert isinstance(self, nn.Conv2d)
        if self.declines("conv2d", self, input):
            return cast(Tensor, super().forward(input))
        if convolves_itself(self) or geometry_of(self) is None:
            self.note_choice(ProductChoice("dense", "torch", NO_GEOMETRY))
            return cast(Tensor, super().forward(input))
        return self.multiply(self, input)


class EventLinear(SpikeLayer):
    """Mixin in front of `torch.nn.Linear`."""

    def forward(self, input: Tensor) -> Tensor:
        if self.declines("linear", self, input):
            return cast(Tensor, super().forward(input))
        return self.multiply(self, input)


MOST_SHAPES = 4
"""Of a layer's calls, whose choices are remembered: training, validation, and the last batch of both."""
NO_GEOMETRY = "its padding is not a number of zeros, or its forward pass is its own"


def _call_key(kind: ProductKind, x: Tensor, weight: Tensor) -> tuple[Any, ...]:
    """What a refusal by shape depends on; of the backend that is asked, its address, which pickles well.

    Were another backend to get the same address, or a layer another stride, calls would run densely that need not.
    """
    device = x.device.type
    return id(product_backend(kind, device)[1]), device, x.shape, x.dtype, weight.shape, weight.dtype


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
            module.products = mode
            module.forget_choices()


def explain_products(net: nn.Module) -> list[str]:
    """A line for each layer of `net` that may multiply by events, one for each other shape of its calls, and a sum."""
    lines = []
    last: list[ProductChoice] = []
    for name, module in net.named_modules():
        if isinstance(module, SpikeLayer):
            place = f"{name}: " if name else ""
            ran = "has not run yet" if module.product is None else str(module.product)
            others = [f"\n    before: {choice}" for choice in module.choices if choice != module.product]
            lines.append(f"{place}{type(module).__name__} multiplies {module.products!r}: {ran}{''.join(others)}")
            if module.product is not None:
                last.append(module.product)
    if len(last) > 1:
        lines.append(_count_reasons(last))
    return lines


def _count_reasons(choices: Sequence[ProductChoice]) -> str:
    """How many products ran by events, and how many did not for which reason."""
    reasons = Counter(choice.reason for choice in choices if choice.path == "dense")
    by_events = len(choices) - reasons.total()
    dense = [f"{count} dense ({reason})" for reason, count in reasons.most_common()]
    return f"products of the last call: {', '.join([f'{by_events} by events', *dense])}"


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
