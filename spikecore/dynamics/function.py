"""Calling an `autograd.Function` at the price of its C++ part.

`Function.apply` inspects the signature of `forward` at every call, for the sake of functional transforms; that takes
longer than the spike itself. Without a transform its parent's `apply` does all that is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function

_active = getattr(torch._C, "_are_functorch_transforms_active", None)


def transforms_active() -> bool:
    """Is a transform of `torch.func` running? Where torch does not say, no."""
    return _active is not None and _active()


def apply(function: type[Function], *args: Any) -> Any:
    """`function.apply(*args)`, for a function with `setup_context`."""
    if torch.compiler.is_compiling() or _active is None or _active():
        return function.apply(*args)  # type: ignore[no-untyped-call]
    return super(Function, function).apply(*args)  # type: ignore[misc]
