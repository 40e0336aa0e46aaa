"""`spike`: a step function in the forward pass, a surrogate's derivative in the backward pass.

    s = Θ(u)        ds/du := g'(u)        ds/dα := ∂g/∂α for a learnable option α of the surrogate

g' is the declared `derivative`, ∂g/∂α comes from the declared `primitive` g by differentiating its graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spikecore.dynamics.builder import Builder
from spikecore.dynamics.evaluate import evaluate
from spikecore.dynamics.functions import detach, where
from spikecore.dynamics.graph import Graph
from spikecore.dynamics.namespace import Namespace
from spikecore.dynamics.source import refuse
from spikecore.dynamics.sym import Sym, as_node, emit
from spikecore.dynamics.vjp import vjp
from spikecore.torch_internals import apply_unchecked, has_forward_derivatives, transforms_active

HALF = (torch.float16, torch.bfloat16)
"""As in `spikecore.nn.half`, which this layer cannot import."""


def spike(u: Any, surrogate: Any, strict: bool = False) -> Any:
    """Θ(u) forward, `surrogate.derivative(u)` backward; with `spiking=False`, the surrogate's primitive forward.

    NaN does not spike.

    Args:
        u: distance to the threshold.
        surrogate: an instance with `derivative(u, config)`, `forward(u, config)` and `config`.
        strict: fires where u > 0 only, in place of u >= 0. For surrogates whose forward is Θ.

    Raises:
        DynamicsError: the surrogate declares no derivative.
    """
    config = surrogate.config
    if not callable(getattr(surrogate, "derivative", None)):
        raise refuse(
            f"spike with {type(surrogate).__name__}, which declares no derivative",
            "declare a static method derivative(u, params): the backward pass needs it",
        )
    is_learned = isinstance(surrogate, LearnedSurrogate)
    if isinstance(u, Tensor):
        if is_learned:
            return _learned_spike(u, surrogate, strict)
        return _tensor_spike(u, surrogate, strict)
    value = _output(u, surrogate, strict)
    if not isinstance(u, Sym):
        return value
    # The smooth primitive g also gets the declared derivative: differentiating a g that contains |u| would give
    # the wrong g'(0), since the derivative of |u| at 0 is taken as 0.
    derivative = surrogate.derivative(u, config)
    if not is_learned:
        return emit("spike", value, u, derivative)
    # A spike passes its gradient to its second argument alone. The sum below exists for its derivatives only: that of
    # its first term is g'(u), those of its second term are ∂g/∂α.
    slopes = surrogate.primitive(detach(u), config)
    return emit("spike", value, emit("spike", 0.0, u, derivative) + slopes, 1.0)


def _tensor_spike(u: Tensor, surrogate: Any, strict: bool) -> Any:
    """The spikes of a tensor, by the cheapest way that whoever looks on allows."""
    if torch.compiler.is_compiling():
        return _compiled_spike(u, surrogate, strict)
    if transforms_active() or has_forward_derivatives():
        return _watched_spike(u, surrogate, strict)
    if torch.is_grad_enabled():
        return _quick_spike(u, surrogate, strict)
    return _spikes(u, surrogate, strict)


class _Spike(torch.autograd.Function):
    """Forward: the surrogate's `forward`; backward: its declared `derivative`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, surrogate: Any, strict: bool) -> Tensor:
        return _spikes(u, surrogate, strict)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        u, ctx.surrogate, _ = inputs
        ctx.set_materialize_grads(False)  # no gradient is not zero, which times a derivative of NaN is NaN
        ctx.save_for_backward(u)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None, None]:
        (u,) = ctx.saved_tensors
        return _through(u, grad, ctx.surrogate), None, None


class _SpikeWithTangents(_Spike):
    """With a forward-mode derivative as well, which torch.compile does not take."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _Spike.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, *_: None) -> Tensor | None:
        (u,) = ctx.saved_tensors
        return _through(u, tangent, ctx.surrogate)


def _through(u: Tensor, change: Tensor | None, surrogate: Any) -> Tensor | None:
    """A gradient or a tangent, times the surrogate's derivative at `u`."""
    if change is None:
        return None
    product: Tensor = change * surrogate.derivative(_wide(u), surrogate.config)
    return product.to(u.dtype)


def _wide(u: Tensor) -> Tensor:
    """α² and (1 + u²) leave the range of half precision early."""
    return u.float() if u.dtype in HALF else u


_compiled_spike: Any = _Spike.apply
_watched_spike: Any = _SpikeWithTangents.apply
_quick_spike = apply_unchecked(_Spike)


def _spikes(u: Tensor, surrogate: Any, strict: bool) -> Tensor:
    spikes: Tensor = _output(u, surrogate, strict)
    return spikes if spikes.dtype == u.dtype else spikes.to(u.dtype)


def _output(u: Any, surrogate: Any, strict: bool) -> Any:
    if not getattr(surrogate.config, "spiking", True):
        return surrogate.primitive(u, surrogate.config)
    if strict:
        return where(u > 0, 1.0, 0.0, like=u)
    return surrogate.forward(u, surrogate.config)


# Learnable options.


class LearnableSurrogate:
    """A surrogate some of whose options are trained, so that their values are known in the step only.

    Args:
        surrogate: declares a `primitive`, in the neuron language.
        names: the options that are trained.

    Raises:
        DynamicsError: the neuron language cannot express the primitive.
    """

    def __init__(self, surrogate: Any, names: Sequence[str]) -> None:
        self.surrogate = surrogate
        self.names = tuple(names)
        self._slopes = self._trace_slopes()

    def __reduce__(self) -> tuple[Any, ...]:
        return LearnableSurrogate, (self.surrogate, self.names)

    def with_values(self, values: Sequence[Any]) -> LearnedSurrogate:
        """The surrogate with these values (tensors, or symbols) of the options `names`."""
        return LearnedSurrogate(self, values)

    def config_with(self, values: Sequence[Any]) -> Namespace:
        """Its options, with these values for the learnable ones."""
        config = self.surrogate.config
        options = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        options.update(zip(self.names, values, strict=True))
        return Namespace(**options)

    def slopes(self, u: Tensor, values: Sequence[Tensor], change: Tensor) -> list[Tensor]:
        """`change` times ∂g/∂α at `u`, for each of `names`: one number for each element of `u`."""
        inputs = {f"value.{name}": value for name, value in zip(self.names, values, strict=True)}
        shares = evaluate(self._slopes, {"u": u, "grad.g": change, **inputs})
        slopes = []
        for name in self.names:
            share = shares[f"grad.value.{name}"]
            slopes.append(share if isinstance(share, Tensor) else torch.full_like(change, share))
        return slopes

    def _trace_slopes(self) -> Graph:
        builder = Builder()
        u = Sym(builder, builder.input("u"))
        values = [Sym(builder, builder.input(f"value.{name}")) for name in self.names]
        primitive = self.surrogate.primitive(u, self.config_with(values))
        node = as_node(builder, primitive, f"the primitive of {type(self.surrogate).__name__}")
        return vjp(builder.graph({"g": node}), ["g"], [f"value.{name}" for name in self.names])


class LearnedSurrogate:
    """What a step sees as `params.surrogate`: a learnable surrogate together with the values that it has now."""

    def __init__(self, learnable: LearnableSurrogate, values: Sequence[Any]) -> None:
        self.learnable = learnable
        self.values = tuple(values)
        self.config = learnable.config_with(values)

    @property
    def capabilities(self) -> Any:
        """Those of the surrogate."""
        return self.learnable.surrogate.capabilities

    def __call__(self, u: Any) -> Any:
        """Spikes of `u`, any shape."""
        return spike(u, self)

    def derivative(self, u: Any, params: Any) -> Any:
        """g'(u)."""
        return self.learnable.surrogate.derivative(u, params)

    def primitive(self, u: Any, params: Any) -> Any:
        """g(u)."""
        return self.learnable.surrogate.primitive(u, params)

    def forward(self, u: Any, params: Any) -> Any:
        """Θ(u)."""
        return self.learnable.surrogate.forward(u, params)


class _LearnedSpike(torch.autograd.Function):
    """As `_Spike`; the values of learnable options get a gradient too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, learnable: LearnableSurrogate, strict: bool, *values: Tensor) -> Tensor:
        return _spikes(u, learnable.with_values(values), strict)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        u, ctx.learnable, _, *values = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(u, *values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        u, *values = ctx.saved_tensors
        if grad is None:
            return None, None, None, *[None] * len(values)
        grad_u = _through(u, grad, ctx.learnable.with_values(values))
        grads = []
        for share, value in zip(ctx.learnable.slopes(_wide(u), values, grad), values, strict=True):
            grads.append(share.sum_to_size(value.shape).to(value.dtype))
        return grad_u, None, None, *grads


class _LearnedSpikeWithTangents(_LearnedSpike):
    """With a forward-mode derivative as well, which torch.compile does not take."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _LearnedSpike.setup_context(ctx, inputs, output)
        u, _, _, *values = inputs
        ctx.save_for_forward(u, *values)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, _: None, __: None, *changes: Tensor | None) -> Tensor | None:
        u, *values = ctx.saved_tensors
        total = _through(u, tangent, ctx.learnable.with_values(values))
        slopes = ctx.learnable.slopes(_wide(u), values, torch.ones_like(_wide(u)))
        for change, slope in zip(changes, slopes, strict=True):
            if change is not None:
                share = (slope * change).to(u.dtype)
                total = share if total is None else total + share
        return total


_compiled_learned_spike: Any = _LearnedSpike.apply
_watched_learned_spike: Any = _LearnedSpikeWithTangents.apply


def _learned_spike(u: Tensor, surrogate: LearnedSurrogate, strict: bool) -> Tensor:
    apply = _compiled_learned_spike if torch.compiler.is_compiling() else _watched_learned_spike
    spikes: Tensor = apply(u, surrogate.learnable, strict, *surrogate.values)
    return spikes
