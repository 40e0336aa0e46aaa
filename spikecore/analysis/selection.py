"""Selects layers of a net by name, type, predicate, or a sequence of these."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence

from torch import nn

from spikecore.errors import OptionError

Where = str | type[nn.Module] | Callable[[str, nn.Module], bool] | Sequence["Where"]
"""A qualified name, a type of layer, `predicate(name, module) -> bool`, or a sequence of these."""


def select_layers(net: nn.Module, where: Where) -> dict[str, nn.Module]:
    """Qualified name → layer, in the order of `net.named_modules()`; `net` itself is `""`.

    Args:
        net: any module.
        where: a name, a type, a predicate, or a sequence of these (the union of what they select).

    Raises:
        OptionError: `net` has no layer of this name (the message suggests the nearest ones); a type or predicate
            selects nothing; a value of another kind.

    Example:
        >>> list(select_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.Linear))
        ['0']
    """
    modules = dict(net.named_modules())
    picked = set()
    for choice in where if isinstance(where, list | tuple) else [where]:
        picked |= _pick(modules, choice)
    return {name: module for name, module in modules.items() if name in picked}


def _pick(modules: dict[str, nn.Module], where: Where) -> set[str]:
    if isinstance(where, str):
        if where not in modules:
            near = difflib.get_close_matches(where, modules, n=3)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise OptionError(f"the net has no layer {where!r}{hint} (layers: {_list_names(modules)})")
        return {where}
    if inspect.isclass(where):
        names = {name for name, module in modules.items() if isinstance(module, where)}
        if not names:
            kinds = sorted({type(module).__name__ for name, module in modules.items() if name})
            raise OptionError(
                f"the net has no layer of type {where.__name__}; its layers are {', '.join(kinds) or '(none)'}"
            )
        return names
    if callable(where) and not isinstance(where, nn.Module):
        names = {name for name, module in modules.items() if where(name, module)}
        if not names:
            raise OptionError(f"the predicate picks none of the layers {_list_names(modules)}")
        return names
    raise OptionError(
        f"layers are chosen by name, type, predicate(name, module) or a list of these; got {where!r}: "
        "a module itself is chosen by its name in the net"
    )


def _list_names(modules: dict[str, nn.Module]) -> str:
    names = [repr(name) for name in modules if name]
    if not names:
        return "(none)"
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"{', '.join(names[:12])}{more}"
