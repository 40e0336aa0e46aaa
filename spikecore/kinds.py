"""The table of component kinds. To add a kind, add a row; everything else reads this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kind:
    """One kind of component.

    Args:
        name: singular, as users type it (`neuron`).
        group: the entry-point group plugins register in (`spikecore.neurons`).
        contract: `module:Class` of the contract that a component must satisfy.
        suite: `module:Class` of the conformance suite that proves it.
        api_versions: the versions of the contract that this core understands.
        keywords: keywords of `create` that are not the component's own: name → `module:function`, which is called as
            `function(made, value, name of the component)` after it was made. An option of that name in its `Config`
            comes first.
    """

    name: str
    group: str
    contract: str
    suite: str
    api_versions: frozenset[int] = frozenset({1})
    keywords: Mapping[str, str] = field(default_factory=dict, compare=False)


KEYWORDS: dict[str, dict[str, str]] = {"model": {"weights": "spikecore.nn.weights:load_weights"}}
"""Kind → its `keywords`."""


def _kind(name: str, *api_versions: int) -> Kind:
    title = name.capitalize()
    return Kind(
        name=name,
        group=f"spikecore.{name}s",
        contract=f"spikecore.interfaces.{name}:{title}",
        suite=f"spikecore.testing.suites.{name}:{title}Suite",
        api_versions=frozenset(api_versions or {1}),
        keywords=KEYWORDS.get(name, {}),
    )


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _kind("encoder"),
        _kind("neuron"),
        _kind("surrogate"),
        _kind("backend", 2),  # 2: a base class, `step` and `stream_copy` with defaults
        _kind("model", 2),  # 2: num_outputs, which need not be classes
        _kind("dataset", 2),  # 2: target, num_outputs
        _kind("trainer", 3),  # 2: prepare, roles; 3: evaluate(split), checkpoint(weights), large states
        _kind("converter", 2),  # 2: calls of the graph, buffers, no data kept
        _kind("deployer", 2),  # 2: check, trace, typed records
    )
}

PLUGIN_GROUP = "spikecore.plugins"
"""Exactly one entry per distribution: a light module with pluggy hook implementations."""

CHOICE_GROUP = "spikecore.choices"
"""Choices inside a component's Config, named TABLE.NAME; see `registry.choices`."""

COMMAND_GROUP = "spikecore.commands"
"""Extra subcommands of `spike`: click commands."""
