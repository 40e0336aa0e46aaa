"""Tables of choices: losses, readouts, optimizers and the like, which an option of a component names.

A choice is not a component: it is part of its owner's `Config`, and the owner defines which choices it accepts. Like a
component it is offered by a line of metadata, and imported only when it is used:

    [project.entry-points."spikecore.choices"]
    "loss.focal" = "my_package.losses:Focal"

A table exists once a Config names it, or a distribution offers a choice in it.
"""

from __future__ import annotations

from spikecore.kinds import KINDS

CHOICE = "choice"
"""The kind of an entry whose name is not TABLE.NAME; every other choice has its table as its kind."""
TAKEN = frozenset({*KINDS, "command", "plugin", CHOICE})
"""Names that no table may have."""

_declared: set[str] = set()


def declare_table(table: str) -> None:
    """Make a table known, so that choices can be registered in it.

    Raises:
        ValueError: the name is taken by a kind, or is no identifier.
    """
    if not table.isidentifier() or table in TAKEN:
        raise ValueError(f"a table of choices needs an identifier that is no kind as its name, got {table!r}")
    _declared.add(table)


def declared_tables() -> frozenset[str]:
    """The tables that Configs imported so far have named."""
    return frozenset(_declared)


def table_and_name(point: str) -> tuple[str, str]:
    """`("loss", "tet")` from the entry point `loss.tet`; `("choice", point)` where it is malformed."""
    table, _, name = point.partition(".")
    if not name or not table.isidentifier() or table in TAKEN:
        return CHOICE, point
    return table, name
