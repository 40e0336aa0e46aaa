"""Functions of torch that count axes from the batch, as the layers of the same name do, and who may call them.

`torch.nn.functional.batch_norm` of a sequence `[T, B, C]` takes B for the channels, without an error where B has the
size of its weights. `time_axis` sees such a call in the graph of a net. Most nets make none, and a trace runs `forward`
once more, so `may_call_one` first reads the names in its code.

Left out are functions that work on the last axes alone, and so are right for a sequence of the rank they take: pooling,
`interpolate`, `pixel_shuffle`, `layer_norm`, `linear`; and those that say which axis they mean, such as `flatten`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.nn import functional

_NAMES = (
    *("batch_norm", "instance_norm", "group_norm", "local_response_norm", "channel_shuffle"),
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout", "feature_dropout"),
)
FUNCTIONS: frozenset[Callable[..., Any]] = frozenset(
    getattr(home, name) for home in (functional, torch) for name in _NAMES if hasattr(home, name)
)
"""Functions that take axis 0 of their first argument for the batch and axis 1 for the channels."""

_IN_CODE = frozenset(_NAMES)
_IDENTITIES = frozenset(id(function) for function in FUNCTIONS)  # of values that may have no hash


def may_call_one(module: nn.Module) -> bool:
    """Whether the code of this module names one of `FUNCTIONS`; its submodules are not looked at.

    Looks at the methods of its class and at its attributes, and at the functions that these name or close over.
    """
    waiting = [*_values_of(module)]
    seen: set[CodeType] = set()
    while waiting:
        value = _unwrapped(waiting.pop())
        if id(value) in _IDENTITIES:
            return True
        if not _is_users_function(value) or value.__code__ in seen:
            continue
        seen.add(value.__code__)
        names = [*_names(value.__code__)]
        if not _IN_CODE.isdisjoint(names):
            return True
        waiting += [value.__globals__[name] for name in names if name in value.__globals__]
        waiting += _closed_over(value)
    return False


def _values_of(module: nn.Module) -> Iterator[Any]:
    """Attributes of the module, and of its classes up to torch's."""
    yield from vars(module).values()
    for cls in type(module).__mro__:
        if cls is nn.Module:
            return
        yield from vars(cls).values()


def _unwrapped(value: Any) -> Any:
    """The function of a static, class or bound method, or of a `partial`."""
    if isinstance(value, partial):
        return _unwrapped(value.func)
    return value.__func__ if isinstance(value, staticmethod | classmethod | MethodType) else value


def _is_users_function(value: Any) -> TypeGuard[FunctionType]:
    """Torch's own functions call layers everywhere, and core's look after the axes themselves."""
    return isinstance(value, FunctionType) and not str(value.__module__).startswith(("torch.", "spikecore."))


def _names(code: CodeType) -> Iterator[str]:
    """Names of attributes and globals that the code reads, also in functions that it defines."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _closed_over(function: FunctionType) -> list[Any]:
    """What it holds of the function around it, such as the one that a decorator wraps."""
    contents: list[Any] = []
    for cell in function.__closure__ or ():
        try:
            contents.append(cell.cell_contents)
        except ValueError:  # nothing was assigned yet
            continue
    return contents
