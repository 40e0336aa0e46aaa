"""Components by `(kind, name)`: listed from installed metadata, imported on use.

The functions in this module use one default `Registry`; inside `with use(other):` they use another.
"""

from __future__ import annotations

from typing import Any

from spikecore.registry.blocking import Blocking
from spikecore.registry.registry import Registry, registry, use
from spikecore.registry.scan import Entry, Plugin


def plugins() -> list[Plugin]:
    """The installed distributions that offer components."""
    return registry().plugins()


def components(kind: str | None = None) -> list[Entry]:
    """The components of a kind, or of all."""
    return registry().components(kind)


def choices(table: str) -> list[Entry]:
    """The choices of a table such as `loss`."""
    return registry().choices(table)


def find(kind: str, name: str) -> Entry:
    """The entry that a name means; see `Registry.find`."""
    return registry().find(kind, name)


def load(kind: str, name: str) -> Any:
    """The component's class; see `Registry.load`."""
    return registry().load(kind, name)


def create(kind: str, name: str, *args: Any, **options: Any) -> Any:
    """An instance of a component; see `Registry.create`."""
    return registry().create(kind, name, *args, **options)


def build(kind: str, name: str, config: Any, *args: Any, **keywords: Any) -> Any:
    """An instance of a component from its checked Config; see `Registry.build`."""
    return registry().build(kind, name, config, *args, **keywords)


def register(kind: str, name: str, obj: Any = None, *, replace: bool = False) -> Any:
    """Add a component to this process; see `Registry.register`."""
    return registry().register(kind, name, obj, replace=replace)


def name_of(obj: Any) -> str:
    """The name under which a component is known; see `Registry.name_of`."""
    return registry().name_of(obj)


__all__ = [
    "Blocking",
    "Entry",
    "Plugin",
    "Registry",
    "build",
    "choices",
    "components",
    "create",
    "find",
    "load",
    "name_of",
    "plugins",
    "register",
    "registry",
    "use",
]
