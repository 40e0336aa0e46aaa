"""Messages for what is not there: names of other libraries, and sequences that nobody asked to record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from spikecore.registry.catalogue import install_hint, known


class Recorded(dict[str, Tensor]):
    """Name → sequence `[T, B, ...]`; a missing name is an error that says how to record it.

    Args:
        neuron: the class of the neuron.
        record: the names it was asked to record.
        sequences: what its last call in this thread recorded.
    """

    def __init__(self, neuron: str, record: Sequence[str], sequences: dict[str, Tensor]) -> None:
        super().__init__(sequences)
        self._neuron, self._record = neuron, tuple(record)

    def __missing__(self, name: str) -> Tensor:
        if name in self._record:
            raise KeyError(f"{self._neuron} has not recorded {name!r} yet: call it (in this thread) first")
        asked = ", ".join(repr(own) for own in (*self._record, name))
        raise KeyError(f"{self._neuron} does not record {name!r}: make it with record=({asked},)")


def no_such_name(name: str, exported: Iterable[type]) -> str:
    """`spikecore.nn has no …`, with the name that the same thing has here.

    Args:
        name: what was asked for, perhaps as another library calls it.
        exported: the classes that are there.
    """
    message = f"module 'spikecore.nn' has no attribute {name!r}"
    for component in exported:
        if name in vars(component).get("known_as", ()):
            return f"{message}: what other libraries call {name} is spikecore.nn.{component.__name__}"
    plain = _plain(name.removesuffix("Node"))
    for kind, registered in known():
        if kind == "neuron" and _plain(registered) == plain:
            hint = install_hint(kind, registered)
            cure = f"it is spikecore.create('neuron', '{registered}')"
            return f"{message}: {cure}; {hint}" if hint else f"{message}: {cure}"
    return message


def _plain(name: str) -> str:
    """Without the conventions of class names and registered names: `CubaLIF` and `cuba_lif` are one."""
    return name.replace("_", "").lower()
