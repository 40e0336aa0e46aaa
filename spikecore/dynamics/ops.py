"""The operators of the neuron language.

Every operator takes tensors (eager), symbols (tracing) and Python numbers; numbers mix freely with both. Arithmetic and
comparisons use Python's signs. `OPS` is the table of all operations of a graph, for printers and interpreters.

The functions below are generic in a way that Python's types cannot say (tensor in, tensor out; symbol in, symbol out;
numbers alone give a number), hence their `Any`.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikecore.dynamics import numbers
from spikecore.dynamics.source import refuse
from spikecore.dynamics.sym import Sym, emit, has_sym
from spikecore.torch_internals import apply_unchecked, has_forward_derivatives, transforms_active

HALF = (torch.float16, torch.bfloat16)
_VALUES = (Tensor, Sym)


@dataclass(frozen=True)
class Op:
    """One operation of a graph.

    Args:
        arity: number of arguments.
        tensors: the operation on tensors; some arguments may be numbers.
        numbers: the operation on numbers, IEEE 754.
        bool_args: the arguments are truth values (all, or the first one only for `where`).
        is_bool: the result is a truth value.
        text: the operation in words or signs, for the documentation.
        exact: every device gives the same bits, those that IEEE 754 defines. If False, libraries may differ in the last
            bit: such a call is never folded to a constant, and comparisons allow for the difference.
    """

    arity: int
    tensors: Callable[..., Any]
    numbers: Callable[..., Any]
    text: str
    bool_args: int = 0
    is_bool: bool = False
    exact: bool = True


def _tensor(a: Tensor | float, like: Tensor) -> Tensor:
    return a if isinstance(a, Tensor) else torch.full((), a, dtype=like.dtype, device=like.device)


def _all_tensors(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function` of torch, which takes tensors only, with numbers as arguments too."""

    def call(*args: Tensor | float) -> Tensor:
        like = next(a for a in args if isinstance(a, Tensor))
        return function(*(_tensor(a, like) for a in args))

    return call


def _clamp(a: Tensor | float, low: Tensor | float, high: Tensor | float) -> Tensor:
    if isinstance(a, Tensor) and not isinstance(low, Tensor) and not isinstance(high, Tensor):
        return torch.clamp(a, low, high)
    like = next(argument for argument in (a, low, high) if isinstance(argument, Tensor))
    return torch.clamp(_tensor(a, like), _tensor(low, like), _tensor(high, like))


def _unary(tensors: Callable[[Any], Any], on_numbers: Callable[[float], float], text: str, exact: bool = True) -> Op:
    return Op(1, tensors, on_numbers, text, exact=exact)


def _compare(function: Callable[[Any, Any], Any], sign: str) -> Op:
    return Op(2, function, function, f"a {sign} b", is_bool=True)


OPS: Mapping[str, Op] = {
    "add": Op(2, operator.add, operator.add, "a + b"),
    "sub": Op(2, operator.sub, operator.sub, "a - b"),
    "mul": Op(2, operator.mul, operator.mul, "a * b"),
    "div": Op(2, operator.truediv, numbers.div, "a / b"),
    "neg": Op(1, operator.neg, operator.neg, "-a"),
    "lt": _compare(operator.lt, "<"),
    "le": _compare(operator.le, "<="),
    "gt": _compare(operator.gt, ">"),
    "ge": _compare(operator.ge, ">="),
    "eq": _compare(operator.eq, "=="),
    "ne": _compare(operator.ne, "!="),
    "and": Op(2, torch.logical_and, lambda a, b: a and b, "a & b", bool_args=2, is_bool=True),
    "or": Op(2, torch.logical_or, lambda a, b: a or b, "a | b", bool_args=2, is_bool=True),
    "not": Op(1, torch.logical_not, operator.not_, "~a", bool_args=1, is_bool=True),
    "exp": _unary(torch.exp, numbers.exp, "e to the power a", exact=False),
    "log": _unary(torch.log, numbers.log, "natural logarithm", exact=False),
    "sqrt": _unary(torch.sqrt, numbers.sqrt, "square root", exact=False),  # not in torch's vector code
    "tanh": _unary(torch.tanh, math.tanh, "hyperbolic tangent", exact=False),
    "sigmoid": _unary(torch.sigmoid, numbers.sigmoid, "1 / (1 + exp(-a))", exact=False),
    "abs": _unary(torch.abs, builtins.abs, "absolute value"),
    "sign": _unary(torch.sign, numbers.sign, "-1, 0 or 1; 0 for NaN"),
    "floor": _unary(torch.floor, numbers.floor, "largest integer not above a"),
    "round": _unary(torch.round, numbers.round_half_even, "nearest integer, halves to even"),
    "sin": _unary(torch.sin, numbers.finite_only(math.sin), "sine", exact=False),
    "cos": _unary(torch.cos, numbers.finite_only(math.cos), "cosine", exact=False),
    "atan": _unary(torch.atan, math.atan, "arc tangent", exact=False),
    "erf": _unary(torch.erf, math.erf, "error function", exact=False),
    "min": Op(2, _all_tensors(torch.minimum), numbers.minimum, "the smaller; NaN if one is"),
    "max": Op(2, _all_tensors(torch.maximum), numbers.maximum, "the larger; NaN if one is"),
    "clamp": Op(3, _clamp, numbers.clamp, "min(max(a, low), high)"),
    "where": Op(3, torch.where, lambda c, a, b: a if c else b, "a where c, else b", bool_args=1),
    "spike": Op(3, lambda value, u, derivative: value, lambda value, u, derivative: value, "value; d/du = derivative"),
    "detach": Op(1, torch.detach, lambda a: a, "a; no gradient passes"),
}


def _run(name: str, *args: Any) -> Any:
    if has_sym(args):
        return emit(name, *args)
    for a in args:
        if isinstance(a, Tensor):
            return OPS[name].tensors(*args)
    return OPS[name].numbers(*args)


def exp(a: Any) -> Any:
    """e to the power a."""
    return _run("exp", a)


def log(a: Any) -> Any:
    """The natural logarithm; -inf at 0, NaN below."""
    return _run("log", a)


def sqrt(a: Any) -> Any:
    """The square root; NaN below 0."""
    return _run("sqrt", a)


def tanh(a: Any) -> Any:
    """The hyperbolic tangent."""
    return _run("tanh", a)


def sigmoid(a: Any) -> Any:
    """1 / (1 + exp(-a))."""
    return _run("sigmoid", a)


def abs(a: Any) -> Any:
    """The absolute value; gradient 0 at 0."""
    return _run("abs", a)


def sign(a: Any) -> Any:
    """-1, 0 or 1; 0 for NaN; no gradient."""
    return _run("sign", a)


def floor(a: Any) -> Any:
    """The largest integer not above a; no gradient."""
    return _run("floor", a)


def round(a: Any) -> Any:
    """The nearest integer, halves to even; no gradient."""
    return _run("round", a)


def sin(a: Any) -> Any:
    """The sine, of radians."""
    return _run("sin", a)


def cos(a: Any) -> Any:
    """The cosine, of radians."""
    return _run("cos", a)


def atan(a: Any) -> Any:
    """The arc tangent, in radians."""
    return _run("atan", a)


def erf(a: Any) -> Any:
    """The error function."""
    return _run("erf", a)


def min(a: Any, b: Any) -> Any:
    """The smaller one; NaN if one of them is. Equal arguments get half of the gradient each, as in torch."""
    return _run("min", a, b)


def max(a: Any, b: Any) -> Any:
    """The larger one; NaN if one of them is. Equal arguments get half of the gradient each, as in torch."""
    return _run("max", a, b)


def clamp(a: Any, min: Any = None, max: Any = None) -> Any:
    """`a` limited to [min, max]; at the limits the gradient still passes, as in torch.

    Raises:
        DynamicsError: neither limit is given.
    """
    if min is None and max is None:
        raise refuse("clamp needs a lower limit, an upper limit or both; got neither", "write clamp(v, 0.0, 1.0)")
    return _run("clamp", a, -math.inf if min is None else min, math.inf if max is None else max)


def logical_and(a: Any, b: Any) -> Any:
    """Both hold; also written `a & b`."""
    return _run("and", a, b)


def logical_or(a: Any, b: Any) -> Any:
    """At least one holds; also written `a | b`."""
    return _run("or", a, b)


def logical_not(a: Any) -> Any:
    """It does not hold; also written `~a` (on tensors and symbols)."""
    return _run("not", a)


def where(condition: Any, a: Any, b: Any, *, like: Any = None) -> Any:
    """`a` where the condition holds, else `b`; the branch not taken gets the gradient zero.

    Args:
        condition: a comparison or a combination of them; a Python bool chooses at once.
        a: a value.
        b: a value.
        like: a value of the step whose dtype the result gets; needed only when `a` and `b` are both numbers and float32
            cannot hold them exactly.

    Raises:
        DynamicsError: both branches are numbers and the dtype of the result is not known.
    """
    if isinstance(condition, bool):
        return a if condition else b
    if isinstance(a, _VALUES) or isinstance(b, _VALUES):
        return _run("where", condition, a, b)
    if like is None and not (numbers.same(numbers.single(a), a) and numbers.same(numbers.single(b), b)):
        raise refuse(
            f"where(condition, {a!r}, {b!r}): two numbers give the result no dtype, and float32 cannot hold them "
            "exactly",
            f"pass a value of the step that has the dtype you want: where(condition, {a!r}, {b!r}, like=v)",
        )
    if isinstance(condition, Sym):
        return emit("where", condition, a, b)
    dtype = like.dtype if isinstance(like, Tensor) else torch.float32
    if a == 1 and b == 0:
        return condition.to(dtype)
    first, second = (torch.full((), number, dtype=dtype, device=condition.device) for number in (a, b))
    return torch.where(condition, first, second)


def detach(a: Any) -> Any:
    """`a`, with no gradient through it."""
    return _run("detach", a)


class _Spike(torch.autograd.Function):
    """Forward: the surrogate's `forward`; backward and forward-mode derivative: its declared `derivative`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, surrogate: Any, strict: bool) -> Tensor:
        return _spikes(u, surrogate, strict)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        u, ctx.surrogate, _ = inputs
        ctx.set_materialize_grads(False)  # no gradient is not zero, which times a derivative of NaN is NaN
        ctx.save_for_backward(u)
        ctx.save_for_forward(u)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None, None]:
        (u,) = ctx.saved_tensors
        return _through(u, grad, ctx.surrogate), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, *_: None) -> Tensor | None:
        (u,) = ctx.saved_tensors
        return _through(u, tangent, ctx.surrogate)


def _through(u: Tensor, change: Tensor | None, surrogate: Any) -> Tensor | None:
    """A gradient or a tangent, times the surrogate's derivative at `u`."""
    if change is None:
        return None
    wide = u.float() if u.dtype in HALF else u  # α² and (1 + u²) leave the range of half precision early
    product: Tensor = change * surrogate.derivative(wide, surrogate.config)
    return product.to(u.dtype)


_watched_spike: Any = _Spike.apply
_quick_spike = apply_unchecked(_Spike)


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
    if isinstance(u, Tensor):
        is_watched = torch.compiler.is_compiling() or transforms_active() or has_forward_derivatives()
        if not is_watched and not torch.is_grad_enabled():
            return _spikes(u, surrogate, strict)
        return _watched_spike(u, surrogate, strict) if is_watched else _quick_spike(u, surrogate, strict)
    value = _output(u, surrogate, strict)
    if isinstance(u, Sym):
        # The smooth primitive g also gets the declared derivative: differentiating a g that contains |u| would give
        # the wrong g'(0), since the derivative of |u| at 0 is taken as 0.
        return emit("spike", value, u, surrogate.derivative(u, config))
    return value


def _spikes(u: Tensor, surrogate: Any, strict: bool) -> Tensor:
    spikes: Tensor = _output(u, surrogate, strict)
    return spikes if spikes.dtype == u.dtype else spikes.to(u.dtype)


def _output(u: Any, surrogate: Any, strict: bool) -> Any:
    if not getattr(surrogate.config, "spiking", True):
        return surrogate.primitive(u, surrogate.config)
    if strict:
        return where(u > 0, 1.0, 0.0, like=u)
    return surrogate.forward(u, surrogate.config)
