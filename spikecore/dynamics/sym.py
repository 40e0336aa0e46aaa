"""`Sym`: a placeholder for a value while a step is traced. Arithmetic on it adds nodes; everything else is refused.

A symbol refuses whatever cannot be one fixed sequence of operations (`if v > 0`, `float(v)`, loops over values), what
the language does not have (`torch.relu(v)`), and what would change a value in place (as `v += x` does with a tensor).

Operators take and return `Any`: an operand may be a symbol or a number, and the methods below replace those of
tensors, whose types they cannot have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from spikecore.dynamics.ops import OPS
from spikecore.dynamics.source import refuse
from spikecore.errors import DynamicsError, StepError

if TYPE_CHECKING:
    from spikecore.dynamics.builder import Builder

_WHERE = "choose between values with where(condition, a, b) of spikecore.dynamics"
_OPERATORS = "use the operators of spikecore.dynamics (docs/reference/neuron-language.md)"


class Sym:
    """A node of the graph under construction."""

    __slots__ = ("builder", "index")
    builder: Builder
    index: int

    def __init__(self, builder: Builder, index: int) -> None:
        object.__setattr__(self, "builder", builder)
        object.__setattr__(self, "index", index)

    def __repr__(self) -> str:
        return f"<symbol {self.index}>"

    # Arithmetic and comparisons.

    def __add__(self, other: Any) -> Sym:
        return emit("add", self, other)

    def __radd__(self, other: Any) -> Sym:
        return emit("add", other, self)

    def __sub__(self, other: Any) -> Sym:
        return emit("sub", self, other)

    def __rsub__(self, other: Any) -> Sym:
        return emit("sub", other, self)

    def __mul__(self, other: Any) -> Sym:
        return emit("mul", self, other)

    def __rmul__(self, other: Any) -> Sym:
        return emit("mul", other, self)

    def __truediv__(self, other: Any) -> Sym:
        return emit("div", self, other)

    def __rtruediv__(self, other: Any) -> Sym:
        return emit("div", other, self)

    def __neg__(self) -> Sym:
        return emit("neg", self)

    def __pos__(self) -> Sym:
        return self

    def __abs__(self) -> Sym:
        return emit("abs", self)

    def __pow__(self, exponent: Any) -> Sym:
        if isinstance(exponent, int | float) and exponent in (2, 3):
            return self * self if exponent == 2 else self * self * self
        raise refuse(f"a power with exponent {exponent!r}: the language has ** 2 and ** 3", "write exp(log(a) * b)")

    def __lt__(self, other: Any) -> Sym:
        return emit("lt", self, other)

    def __le__(self, other: Any) -> Sym:
        return emit("le", self, other)

    def __gt__(self, other: Any) -> Sym:
        return emit("gt", self, other)

    def __ge__(self, other: Any) -> Sym:
        return emit("ge", self, other)

    def __eq__(self, other: object) -> Any:
        return emit("eq", self, other)

    def __ne__(self, other: object) -> Any:
        return emit("ne", self, other)

    __hash__ = None  # type: ignore[assignment]

    def __and__(self, other: Any) -> Sym:
        return emit("and", self, other)

    def __rand__(self, other: Any) -> Sym:
        return emit("and", other, self)

    def __or__(self, other: Any) -> Sym:
        return emit("or", self, other)

    def __ror__(self, other: Any) -> Sym:
        return emit("or", other, self)

    def __invert__(self) -> Sym:
        return emit("not", self)

    # Refusals.

    def __bool__(self) -> NoReturn:
        problem = "Python control flow (if, and, or, not, min(), max(), a < b < c) on a value of the step"
        raise refuse(problem, _WHERE, StepError)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise refuse(f"writing to .{name} of a value of the step", "a step is pure: return new values")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__") and name.endswith("__"):  # Python, numpy and torch probe for such attributes
            raise AttributeError(name)
        if name.endswith("_"):
            raise refuse(f".{name}(...) changes a value in place", "a step is pure: compute a new value", StepError)
        cure = f"write {name}(v) with {name} of spikecore.dynamics" if name in OPS else _OPERATORS
        raise refuse(f".{name} of a value of the step: values have no attributes or methods", cure)

    @classmethod
    def __torch_function__(cls, function: object, types: object, args: object = (), kwargs: object = None) -> NoReturn:
        name = getattr(function, "__name__", str(function))
        if name.startswith("__") and name.endswith("__"):
            raise refuse(
                f"arithmetic ({name}) between a torch.Tensor and a value of the step",
                "make the tensor a parameter of the neuron, or a plain number",
            )
        raise refuse(f"unknown operator torch's {name!r} on a value of the step", _cure(name))

    def __array_ufunc__(self, function: Any, method: str, *args: object, **kwargs: object) -> NoReturn:
        name = function.__name__
        raise refuse(f"unknown operator numpy's {name!r} on a value of the step", _cure(name))

    def __array_function__(self, function: Any, types: object, args: object, kwargs: object) -> NoReturn:
        name = function.__name__
        raise refuse(f"unknown operator numpy's {name!r} on a value of the step", _cure(name))


def _cure(name: str) -> str:
    return f"use {name} of spikecore.dynamics" if name in OPS else _OPERATORS


def _add_refusal(name: str, problem: str, cure: str, kind: type[DynamicsError] = DynamicsError) -> None:
    """Give `Sym` a method `name` that raises."""

    def method(self: Sym, *args: object) -> NoReturn:
        raise refuse(problem, cure, kind)

    method.__name__ = name
    setattr(Sym, name, method)


for _name in ("float", "int", "complex", "index", "array"):
    _add_refusal(
        f"__{_name}__",
        "a value of the step has no number yet: float(), int(), math.* and numpy cannot take it",
        _OPERATORS,
    )
for _name in ("len", "iter", "contains", "getitem"):
    _add_refusal(
        f"__{_name}__", "len(), loops and indexing on a value of the step: it is one number per neuron", _OPERATORS
    )
for _name in ("setitem", "delitem"):
    _add_refusal(
        f"__{_name}__", "an in-place write to a value of the step", "a step is pure: compute a new value", StepError
    )
for _name in ("add", "sub", "mul", "truediv", "pow", "and", "or", "floordiv", "mod"):
    _add_refusal(
        f"__i{_name}__",
        "an in-place operation (such as +=) on a value of the step: on a tensor it would change the caller's value",
        "a step is pure: write v = v + x",
        StepError,
    )
for _name in ("floordiv", "mod", "matmul", "xor", "lshift", "rshift", "round", "divmod"):
    for _prefix in ("__", "__r"):
        _add_refusal(f"{_prefix}{_name}__", f"the language has no operator {_name!r}", _OPERATORS)
_add_refusal("__rpow__", "a power with a value of the step in the exponent", "write exp(log(a) * b)")


def has_sym(values: Sequence[object]) -> bool:
    """Is one of them a symbol?"""
    return any(isinstance(value, Sym) for value in values)


def emit(name: str, *args: object) -> Sym:
    """Add one node to the graph of the symbols among `args`; numbers become constants.

    Raises:
        DynamicsError: the language does not have an argument's type, or got a truth value where it needs a number.
    """
    builder = next(a.builder for a in args if isinstance(a, Sym))
    nodes = [as_node(builder, a, name) for a in args]
    return Sym(builder, builder.op(name, *nodes))


def as_node(builder: Builder, value: object, name: str) -> int:
    """The index of a symbol's node, or of a new constant.

    Raises:
        DynamicsError: the value is neither a symbol nor a number, or belongs to another step.
    """
    if isinstance(value, Sym):
        if value.builder is not builder:
            raise refuse(f"{name!r} mixes values of two steps", "a step is pure: keep no value between calls")
        return value.index
    if isinstance(value, int | float):  # bool too: True is a constant truth value
        return builder.const(value)
    cure = "numbers, strings and truth values are constants; make a tensor a parameter of the neuron"
    raise refuse(f"{name!r} with a {type(value).__module__}.{type(value).__qualname__}: not in the language", cure)
