"""Pages on the API: one per public door, from signatures and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from tests.tools import doors
from tests.tools.site.components import title
from tests.tools.site.markup import rst


def write(folder: Path) -> None:
    """Write all pages.

    Args:
        folder: of the generated pages.
    """
    (folder / "api").mkdir(parents=True)
    names = doors.doors()
    known: set[int] = set()
    for name in names:
        (folder / "api" / f"{name}.rst").write_text("\n".join(_page(name, known)) + "\n", encoding="utf-8")
    lines = [*title("API"), "The public doors: what a program or a plugin may import.", ""]
    lines += [".. toctree::", "    :maxdepth: 1", "", *(f"    {name}" for name in names), ""]
    (folder / "api/index.rst").write_text("\n".join(lines), encoding="utf-8")


def _page(door: str, known: set[int]) -> Iterator[str]:
    """The page of a door; `known` holds what other doors export too, which is in the index once."""
    module = import_module(door)
    yield from title(door)
    yield from rst(module.__doc__ or "")
    yield from ("", f".. py:module:: {door}", "")
    for name in doors.exported(door):
        value = getattr(module, name)
        lines = [line for line in _directive(door, name, value) if line]
        is_known = id(value) in known
        known.add(id(value))
        yield from (*lines[:1], *(["    :no-index:"] if is_known else []), *lines[1:], "")


def _directive(door: str, name: str, value: object) -> Iterator[str]:
    if isinstance(value, ModuleType):  # one that holds further names, or that can be called, as `spikecore.run`
        yield f".. py:data:: {name}"
        return
    if inspect.isclass(value):
        yield from (f".. autoclass:: {door}.{name}", "    :members:")
    elif inspect.isroutine(value):
        yield from (f".. autofunction:: {door}.{name}",)
    else:
        yield from (f".. autodata:: {door}.{name}", "    :no-value:")
