"""The functions of the neuron language: `exp`, `where`, `clamp` and the others.

Every function takes tensors (eager), symbols (tracing) and Python numbers; numbers mix freely with both. A tensor among
the arguments gives a tensor, a symbol gives a symbol, numbers alone give a number. Python's types cannot say that
without an overload for each function, so arguments and results are all `Operand`.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor

from spikecore.dynamics import numbers
from spikecore.dynamics.ops import OPS
from spikecore.dynamics.source import refuse
from spikecore.dynamics.sym import Sym, emit, has_sym

Operand: TypeAlias = Tensor | Sym | float
"""What the functions and signs of the language take: a tensor, a symbol of a traced step, or a number."""

_VALUES = (Tensor, Sym)


def _run(name: str, *args: Operand) -> Operand:
    if has_sym(args):
        return emit(name, *args)
    result: Operand
    for a in args:
        if isinstance(a, Tensor):
            result = OPS[name].tensors(*args)
            return result
    result = OPS[name].numbers(*args)
    return result


def exp(a: Operand) -> Operand:
    """e to the power a."""
    return _run("exp", a)


def log(a: Operand) -> Operand:
    """The natural logarithm; -inf at 0, NaN below."""
    return _run("log", a)


def sqrt(a: Operand) -> Operand:
    """The square root; NaN below 0."""
    return _run("sqrt", a)


def tanh(a: Operand) -> Operand:
    """The hyperbolic tangent."""
    return _run("tanh", a)


def sigmoid(a: Operand) -> Operand:
    """1 / (1 + exp(-a))."""
    return _run("sigmoid", a)


def abs(a: Operand) -> Operand:
    """The absolute value; gradient 0 at 0."""
    return _run("abs", a)


def sign(a: Operand) -> Operand:
    """-1, 0 or 1; 0 for NaN; no gradient."""
    return _run("sign", a)


def floor(a: Operand) -> Operand:
    """The largest integer not above a; no gradient."""
    return _run("floor", a)


def round(a: Operand) -> Operand:
    """The nearest integer, halves to even; no gradient."""
    return _run("round", a)


def sin(a: Operand) -> Operand:
    """The sine, of radians."""
    return _run("sin", a)


def cos(a: Operand) -> Operand:
    """The cosine, of radians."""
    return _run("cos", a)


def atan(a: Operand) -> Operand:
    """The arc tangent, in radians."""
    return _run("atan", a)


def erf(a: Operand) -> Operand:
    """The error function."""
    return _run("erf", a)


def min(a: Operand, b: Operand) -> Operand:
    """The smaller one; NaN if one of them is. Equal arguments get half of the gradient each, as in torch."""
    return _run("min", a, b)


def max(a: Operand, b: Operand) -> Operand:
    """The larger one; NaN if one of them is. Equal arguments get half of the gradient each, as in torch."""
    return _run("max", a, b)


def clamp(a: Operand, min: Operand | None = None, max: Operand | None = None) -> Operand:
    """`a` limited to [min, max]; at the limits the gradient still passes, as in torch.

    Raises:
        DynamicsError: neither limit is given.
    """
    if min is None and max is None:
        raise refuse("clamp needs a lower limit, an upper limit or both; got neither", "write clamp(v, 0.0, 1.0)")
    return _run("clamp", a, -math.inf if min is None else min, math.inf if max is None else max)


def logical_and(a: Operand, b: Operand) -> Operand:
    """Both hold; also written `a & b`."""
    return _run("and", a, b)


def logical_or(a: Operand, b: Operand) -> Operand:
    """At least one holds; also written `a | b`."""
    return _run("or", a, b)


def logical_not(a: Operand) -> Operand:
    """It does not hold; also written `~a` (on tensors and symbols)."""
    return _run("not", a)


def where(condition: Operand, a: Operand, b: Operand, *, like: Operand | None = None) -> Operand:
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
    if not isinstance(condition, Tensor | Sym):
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
    first = torch.full((), a, dtype=dtype, device=condition.device)
    second = torch.full((), b, dtype=dtype, device=condition.device)
    return torch.where(condition, first, second)


def detach(a: Operand) -> Operand:
    """`a`, with no gradient through it."""
    return _run("detach", a)
