"""`Namespace`: the `state` and `params` of a step."""

from __future__ import annotations

import difflib
from typing import Any

from spikecore.dynamics.source import refuse
from spikecore.errors import DynamicsError


class NoSuchField(DynamicsError, AttributeError):
    """A step reads a state or parameter that does not exist; also an AttributeError, so `hasattr` works."""


class Namespace:
    """Read-only attributes: `Namespace(v=..., w=...).v`. Any name works (`k`, `x`, `exp`, `self`).

    `torch.compile` can trace it.
    """

    def __init__(self, /, **values: Any) -> None:
        vars(self).update(values)

    def __getattr__(self, name: str) -> Any:
        near = difflib.get_close_matches(name, vars(self), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "declare it in `state` or `Config`"
        error = refuse(f"no state or parameter {name!r}; there are: {', '.join(vars(self)) or 'none'}", hint)
        raise NoSuchField(str(error))

    def __setattr__(self, name: str, value: Any) -> None:
        raise refuse(f"writing to .{name} of a step's state or parameters", "a step is pure: return the next state")

    def __repr__(self) -> str:
        values = [f"{name}={value!r}" for name, value in vars(self).items()]
        return f"Namespace({', '.join(values)})"
