"""One node of the graph of a net: a call, an input or an attribute, and references to other nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

Kind = Literal["input", "attribute", "module", "function", "method"]
_IN_PLACE = ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor")


@dataclass(frozen=True)
class Ref:
    """An argument that is the value of another node."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True, eq=False)
class NetNode:
    """One call.

    Args:
        name: unique in the graph.
        kind: `input`: an argument of `forward`; `attribute`: a parameter, buffer or constant; `module`, `function` or
            `method`: a call.
        target: the argument's name; the qualified name of the parameter or module; the function; the method's name.
        args: of the call; values of other nodes, also inside tuples, lists, dictionaries and slices, are `Ref`s.
        kwargs: likewise.
        scope: qualified name of the module whose `forward` makes the call; "" for the net itself.
        place: `file:line` of the call in the user's code; "" where torch's own code makes it.
        module: the module that is called.
        shape: of the result for the example inputs, where it is a tensor; None without example.
        dtype: likewise.
        value: of the result for the example inputs where it is no tensor, such as a size.
    """

    name: str
    kind: Kind
    target: str | Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    scope: str = ""
    place: str = ""
    module: nn.Module | None = None
    shape: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None
    value: Any = None

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the nodes whose values it takes, each once, in the order of the arguments."""
        names: dict[str, None] = {}
        replace_refs((self.args, dict(self.kwargs)), lambda ref: names.setdefault(ref.name))
        return tuple(names)

    @property
    def is_call(self) -> bool:
        """Whether it computes something."""
        return self.kind in ("module", "function", "method")

    @property
    def operation(self) -> str:
        """What is called, for messages: `Conv2d`, `relu`, `.flatten()`."""
        if self.kind == "module":
            return type(self.module).__name__
        if self.kind == "method":
            return f".{self.target}()"
        return str(self.target) if isinstance(self.target, str) else function_name(self.target)

    @property
    def is_inplace(self) -> bool:
        """Whether it writes into a tensor that it is given."""
        if self.kind == "module":
            return bool(getattr(self.module, "inplace", False))
        if self.kwargs.get("inplace"):
            return True
        name = str(self.target) if self.kind == "method" else function_name(self.target)
        has_suffix = name.endswith("_") and not name.endswith("__")  # torch's `add_`, but not Python's `__add__`
        return has_suffix or name in _IN_PLACE

    def __str__(self) -> str:
        return f"{self.name} ({self.operation})" + (f" at {self.place}" if self.place else "")


def function_name(function: Any) -> str:
    """The name of a function, or of the class of another callable."""
    return str(getattr(function, "__name__", type(function).__name__))


def replace_refs(value: Any, function: Callable[[Ref], Any]) -> Any:
    """`value` with every `Ref` inside replaced by what `function` makes of it."""
    if isinstance(value, Ref):
        return function(value)
    if isinstance(value, tuple):
        parts = [replace_refs(part, function) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [replace_refs(part, function) for part in value]
    if isinstance(value, dict):
        return {key: replace_refs(part, function) for key, part in value.items()}
    if isinstance(value, slice):
        bounds = (value.start, value.stop, value.step)
        return slice(*[replace_refs(bound, function) for bound in bounds])
    return value


def refs(value: Any) -> list[str]:
    """The names of the nodes that a value refers to, in order, inside tuples, lists, dictionaries and slices too."""
    names: list[str] = []
    replace_refs(value, lambda ref: names.append(ref.name))
    return names
