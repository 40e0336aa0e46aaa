"""THE table of component kinds. Adding a kind is adding a row; everything else reads this table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of component.

    Args:
        name: singular, as users type it (`neuron`).
        group: the entry-point group plugins register in (`spikecore.neurons`).
        contract: `module:Class` of the contract that a component must satisfy.
        suite: `module:Class` of the conformance suite that proves it.
        api_versions: the versions of the contract that this core understands.
    """

    name: str
    group: str
    contract: str
    suite: str
    api_versions: frozenset[int] = frozenset({1})


def _kind(name: str, *api_versions: int) -> Kind:
    title = name.capitalize()
    return Kind(
        name=name,
        group=f"spikecore.{name}s",
        contract=f"spikecore.interfaces.{name}:{title}",
        suite=f"spikecore.testing.suites.{name}:{title}Suite",
        api_versions=frozenset(api_versions or (1,)),
    )


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _kind("encoder"),
        _kind("neuron"),
        _kind("surrogate"),
        _kind("backend"),
        _kind("model"),
        _kind("dataset"),
        _kind("trainer"),
        _kind("converter", 2),
        _kind("deployer"),
    )
}

PLUGIN_GROUP = "spikecore.plugins"
"""Exactly one entry per distribution: a light module with pluggy hook implementations."""

COMMAND_GROUP = "spikecore.commands"
"""Extra subcommands of `spike`: click commands."""
