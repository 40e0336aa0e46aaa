"""The table of the operators of the neuron language, for printers, interpreters and derivatives.

Arithmetic and comparisons use Python's signs; `dynamics.functions` has a function for each of the others. The entries
are generic in a way that Python's types cannot say (tensor in, tensor out; numbers alone give a number), hence `Any`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikecore.dynamics import numbers


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
        # The same numbers from one-sided operators, whose backward pass takes half the time.
        if low == -math.inf and high < math.inf:
            return torch.clamp_max(a, high)
        if high == math.inf and low > -math.inf:
            return torch.clamp_min(a, low)
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
    "abs": _unary(torch.abs, abs, "absolute value"),
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
