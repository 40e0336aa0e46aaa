"""The message about an unknown name."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from spikecore.registry.catalogue import install_hint
from spikecore.registry.nearest import nearest
from spikecore.registry.scan import Entry


def unknown_message(kind: str, name: str, entries: Iterable[Entry]) -> str:
    """There is no such component: how to install it, or which name was probably meant, and which names exist.

    Args:
        kind: of the component, or a table of choices.
        name: what was asked for.
        entries: all that is on offer.
    """
    owner, plain = owner_and_name(name)
    offered = [entry for entry in entries if entry.kind == kind]
    names = sorted({entry.name for entry in offered})
    parts = [f"no {kind} {name!r}."]
    if owner and plain in names:
        qualified = " or ".join(repr(entry.qualified) for entry in offered if entry.name == plain)
        parts.append(f"{plain!r} is offered as {qualified}.")
    elif hint := install_hint(kind, name):
        parts.append(f"{hint}.")
    elif counterparts := _called_so_elsewhere(plain, offered):
        parts.append(f"What other libraries call {plain!r} is {' or '.join(map(repr, counterparts))} here.")
    elif near := nearest(plain, names, 3):
        parts.append(f"Did you mean {' or '.join(map(repr, near))}?")
    parts.append(f"Known {_plural(kind)}: {', '.join(names) or 'none'}.")
    return " ".join(parts)


def owner_and_name(name: str) -> tuple[str, str]:
    """Distribution, or "", and the name, which may hold colons of its own."""
    owner, colon, plain = name.partition(":")
    return (owner, plain) if colon else ("", name)


def _called_so_elsewhere(name: str, entries: Sequence[Entry]) -> list[str]:
    """The components whose `known_as` holds this name.

    Only modules that are loaded already are asked: a message must not import plugins.
    """
    counterparts = []
    for entry in entries:
        module, _, attribute = entry.target.partition(":")
        component = getattr(sys.modules.get(module), attribute, None)
        if name.lower() in {alias.lower() for alias in getattr(component, "known_as", ())}:
            counterparts.append(entry.shortest)
    return counterparts


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"
