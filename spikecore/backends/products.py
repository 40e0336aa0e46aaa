"""Products that know their input is spikes: the one front through which layers reach the backends that have them.

    y = x ⊛ w + b        x of zeros and ones, ⊛ a convolution or a linear map

A backend with `capabilities.spike_products` looks at x on each call: values other than 0 and 1, or too many ones, and
the call runs densely under torch. So the interface stays floats, and any neuron may come before. For the gradient of
the weight the backend keeps what it needs of the spikes (their bits), not x; the gradient of x is dense: it needs the
weight alone.

Compilers, transforms, modes and autocast see torch's dense operators. Second derivatives are refused for a call that
ran by events, because x is not kept for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from spikecore.backends.plain import in_memory, is_plain, refuse_batches
from spikecore.backends.selection import product_backend
from spikecore.errors import BackendError
from spikecore.interfaces.products import ProductGeometry, ProductMode, SpikeProduct
from spikecore.torch_internals import apply_unchecked

if TYPE_CHECKING:
    from spikecore.interfaces.backend import Backend

MODES: tuple[ProductMode, ...] = ("auto", "dense", "event")
SMALL_IMAGE, LARGE_WEIGHT = 16, 1 << 19
"""Positions of an image at most, and values of a weight at least: see `_planes_are_faster`."""
DENSE = "dense"
EVENT = "event"


@dataclass(frozen=True)
class ProductShape:
    """What a product is: geometry, shapes and memory format, on which its kernels and its crossover depend.

    Args:
        geometry: as of `product`.
        x: shape of the input.
        weight: of the weight.
        is_channels_last: the input's memory format.
    """

    geometry: ProductGeometry
    x: tuple[int, ...]
    weight: tuple[int, ...]
    is_channels_last: bool

    def __str__(self) -> str:
        size = "×".join(map(str, self.x))
        if self.geometry.kind == "linear":
            return f"linear {self.weight[1]} → {self.weight[0]} of {size}"
        kernel = "×".join(map(str, self.weight[2:]))
        parts = [f"conv {kernel} {self.weight[1] * self.geometry.groups} → {self.weight[0]}"]
        for name, usual in (("stride", (1, 1)), ("dilation", (1, 1)), ("groups", 1)):
            value = getattr(self.geometry, name)
            if value != usual:
                parts.append(f"{name} {value if isinstance(value, int) else '×'.join(map(str, value))}")
        return f"{', '.join(parts)} of {size}{', channels last' if self.is_channels_last else ''}"


def shape_of(geometry: ProductGeometry, x: Tensor, weight: Tensor) -> ProductShape:
    """The shape of a product of x and weight."""
    is_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return ProductShape(geometry, tuple(x.shape), tuple(weight.shape), is_last)


@dataclass(frozen=True)
class ProductChoice:
    """How a layer's product ran.

    Args:
        path: `event` or `dense`.
        backend: that ran it; `torch` for the dense one.
        reason: why.
        rate: the share of ones in its input, where they were counted.
        crossover: the rate above which such a product is faster densely, where that was measured.
        shape: of the product, where a backend was asked.
        by_shape: any such call with `auto` runs densely, whatever its values are.
    """

    path: str
    backend: str
    reason: str
    rate: float | None = None
    crossover: float | None = None
    shape: ProductShape | None = None
    by_shape: bool = False

    def __str__(self) -> str:
        rate = "" if self.rate is None else f", rate {self.rate:.3f}"
        crossover = "" if self.crossover is None else f", crossover {self.crossover:.3f}"
        shape = "" if self.shape is None else f" ({self.shape})"
        return f"{self.path} on {self.backend}{rate}{crossover}: {self.reason}{shape}"


_REFERENCE = "torch"
_ASKED_FOR = ProductChoice(DENSE, _REFERENCE, "asked for")
_WATCHED = ProductChoice(DENSE, _REFERENCE, "a compiler, transform or mode of torch is at work")
_MIXED = ProductChoice(DENSE, _REFERENCE, "autocast chooses the dtype")
_REFUSED = ProductChoice(DENSE, _REFERENCE, "torch refuses such shapes or devices")


def dense_product(geometry: ProductGeometry, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product by torch's operators."""
    if geometry.kind == "linear":
        return functional.linear(x, weight, bias)
    return functional.conv2d(x, weight, bias, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)


def _faster_dense_product(geometry: ProductGeometry, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same for plain tensors, in the memory format that torch is faster with; the output has that of x."""
    is_last = shape_of(geometry, x, weight).is_channels_last
    if not is_last or not _planes_are_faster(x.shape, weight):
        return dense_product(geometry, x, weight, bias)
    y = dense_product(geometry, x.contiguous(), weight.contiguous(), bias)
    return y.contiguous(memory_format=torch.channels_last)


def fit_together(
    geometry: ProductGeometry, channels: int, device: torch.device, weight: Tensor, bias: Tensor | None
) -> bool:
    """Do weight and bias suit an input of so many channels, and each other? Kernels read their memory unasked."""
    if weight.device != device or weight.shape[1] * geometry.groups != channels:
        return False
    return bias is None or (bias.device == device and bias.shape == weight.shape[:1])


def product(
    mode: ProductMode,
    geometry: ProductGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    half_gradient: bool = False,
) -> tuple[Tensor, ProductChoice | None]:
    """A convolution or linear map of an input that may be spikes.

    Args:
        mode: `auto`: by events where that is faster; `event`: by events whenever x is spikes and a backend has the
            product; `dense`.
        geometry: of the product.
        x: `[N, C, H, W]` or `[..., C]`.
        weight, bias: of the layer.
        half_gradient: compute the gradient of x in bfloat16 where the product ran by events.

    Returns:
        The output, differentiable, in the memory format of x; and how it ran, None within torch.compile.
    """
    if torch.compiler.is_compiling():
        return dense_product(geometry, x, weight, bias), None
    if mode == DENSE:
        return dense_product(geometry, x, weight, bias), _ASKED_FOR
    if not is_plain((x, weight, bias)):
        return dense_product(geometry, x, weight, bias), _WATCHED
    if torch.is_autocast_enabled(x.device.type):
        return dense_product(geometry, x, weight, bias), _MIXED
    channels = x.shape[-1 if geometry.kind == "linear" else -3] if x.dim() else 0
    if not fit_together(geometry, channels, x.device, weight, bias):
        return dense_product(geometry, x, weight, bias), _REFUSED
    name, backend, reason = product_backend(geometry.kind, x.device.type)
    if backend is None:
        return dense_product(geometry, x, weight, bias), ProductChoice(DENSE, _REFERENCE, reason)
    shape = shape_of(geometry, x, weight)
    y, outcome = product_on(name, backend, mode == EVENT, geometry, x, weight, bias, half_gradient)
    why = (outcome.reason, outcome.rate, outcome.crossover, shape)
    if y is None:
        choice = ProductChoice(DENSE, _REFERENCE, *why, by_shape=outcome.by_shape)
        # What is declined by shape is not asked about again, and must not run in another way the first time.
        dense = dense_product if outcome.by_shape else _faster_dense_product
        return dense(geometry, x, weight, bias), choice
    return y, ProductChoice(EVENT, name, *why)


def product_on(
    name: str,
    backend: Backend,
    always: bool,
    geometry: ProductGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    half_gradient: bool = False,
) -> tuple[Tensor | None, SpikeProduct]:
    """The product on one backend.

    Args:
        name: of the backend.
        backend: itself.
        always: by events at any rate.
        geometry, x, weight, bias, half_gradient: as of `product`.

    Returns:
        The output, differentiable, or None; and what the backend said.
    """
    trains = torch.is_grad_enabled()
    saves = trains and weight.requires_grad
    outcome = backend.product(geometry, x.detach(), weight.detach(), _detached(bias), always, saves)
    if outcome.y is None:
        return None, outcome
    needs_graph = saves or (trains and (x.requires_grad or (bias is not None and bias.requires_grad)))
    if not needs_graph:
        return outcome.y, outcome
    call = _Call(name, backend, geometry, half_gradient)
    return _apply(call, _Holder(outcome.y), outcome.kept, x, weight, bias), outcome


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


@dataclass(frozen=True)
class _Call:
    """What a backward pass needs besides tensors."""

    name: str
    backend: Backend
    geometry: ProductGeometry
    half_gradient: bool


class _Holder:
    """Carries a tensor past autograd, which would take an output that is an input for a view of it."""

    def __init__(self, y: Tensor) -> None:
        self.y = y


class _EventProduct(torch.autograd.Function):
    """Gives the result of a product that has run its place in the graph."""

    @staticmethod
    def forward(
        ctx: Any, call: _Call, holder: _Holder, kept: list[Tensor], x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.call, ctx.x_shape = call, x.shape
        ctx.is_channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(weight, *kept)
        return holder.y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        refuse_batches((grad,))
        weight, *kept = ctx.saved_tensors
        needs = ctx.needs_input_grad[3:]
        if not is_plain((grad,)):
            grad = in_memory(grad)
        # Only `create_graph=True` can differentiate again.
        is_direct = is_plain((grad,)) and not torch.is_grad_enabled()
        call: Any = _gradients if is_direct else _EventProductGrad.apply
        results = iter(call(ctx.call, ctx.x_shape, ctx.is_channels_last, needs, grad, weight, *kept))
        return (None, None, None, *(next(results) if is_needed else None for is_needed in needs))


class _EventProductGrad(torch.autograd.Function):
    """The backward pass; differentiating it again is refused, and several gradients at once are taken one by one."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return _gradients(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        apply: Any = _EventProductGrad.apply
        results = []
        for index in range(max(1, info.batch_size)):
            chosen = [
                _one_of(argument, dim, index) if isinstance(dim, int) else argument
                for argument, dim in zip(arguments, in_dims, strict=True)
            ]
            results.append(apply(*chosen))
        stacked = tuple(torch.stack(grads)[: info.batch_size] for grads in zip(*results, strict=True))
        return stacked, (0,) * len(stacked)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        raise BackendError(
            "second derivatives of a product that ran by events: its input was not kept; set products='dense' on the "
            "layer, or call set_products(net, 'dense')"
        )


def _one_of(batch: Tensor, dim: int, index: int) -> Tensor:
    """One of a batch; zeros where there is none, for the shapes of what follows from it."""
    return batch.select(dim, index) if batch.shape[dim] else batch.new_zeros(batch.sum(dim).shape)


def _gradients(
    call: _Call,
    x_shape: Sequence[int],
    is_channels_last: bool,
    needs: tuple[bool, bool, bool],
    grad: Tensor,
    weight: Tensor,
    *kept: Tensor,
) -> tuple[Tensor, ...]:
    """The gradients that are needed of x, weight and bias."""
    geometry = call.geometry
    needs_x, needs_weight, needs_bias = needs
    results = []
    if needs_x:
        factors = (grad, weight)
        if call.half_gradient:
            factors = (grad.bfloat16(), weight.bfloat16())
        results.append(_input_gradient(geometry, x_shape, is_channels_last, *factors).to(grad.dtype))
    if needs_weight:
        results.append(call.backend.product_grad(geometry, kept, x_shape, grad, weight))
    if needs_bias:
        results.append(_bias_gradient(geometry, grad))
    return tuple(results)


def _bias_gradient(geometry: ProductGeometry, grad: Tensor) -> Tensor:
    """The sum over all positions, `[O]`."""
    if geometry.kind == "conv2d":
        return grad.sum((0, 2, 3))
    # One row has no axis to sum over, and torch's `sum(())` would sum over all of them.
    return grad.sum(tuple(range(grad.dim() - 1))) if grad.dim() > 1 else grad


def _input_gradient(
    geometry: ProductGeometry, x_shape: Sequence[int], is_channels_last: bool, grad: Tensor, weight: Tensor
) -> Tensor:
    if geometry.kind == "linear":
        return grad @ weight
    # torch looks at the shape of the input alone: this memory is never touched.
    result_format = torch.channels_last if is_channels_last else torch.contiguous_format
    memory_format = result_format
    if is_channels_last and _planes_are_faster(x_shape, weight):
        grad, weight, memory_format = grad.contiguous(), weight.contiguous(), torch.contiguous_format
    shape_only = torch.empty(x_shape, dtype=grad.dtype, device=grad.device, memory_format=memory_format)
    grad_x: Tensor = torch.ops.aten.convolution_backward(
        grad, shape_only, weight, None, geometry.stride, geometry.padding, geometry.dilation, False, [0, 0],
        geometry.groups, [True, False, False],
    )[0]  # fmt: skip
    return grad_x.contiguous(memory_format=result_format)


def _planes_are_faster(x_shape: Sequence[int], weight: Tensor) -> bool:
    """Is torch faster with one plane for each channel than with channels last?

    It multiplies padding too with channels last. For images of up to 4×4 and many channels that cost 1.6 to 3.8 times
    as much with AVX-512, and up to 1.2 times with AVX2; for larger ones and for fewer channels the formats are alike.
    """
    is_large = weight.dtype == torch.float32 and weight.numel() >= LARGE_WEIGHT
    return is_large and weight.shape[2] * weight.shape[3] > 1 and x_shape[2] * x_shape[3] <= SMALL_IMAGE


_apply = apply_unchecked(_EventProduct)
