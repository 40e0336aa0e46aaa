"""THE table of roles. A role is a table of the configuration that a trainer may use; adding a role is adding a row.

A trainer names its roles in `capabilities.roles`. `[run]`, `[trainer]` and `[plugins]` belong to every run.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from spikecore.interfaces.trainer import TaskKind
from spikecore.registry.loading import is_frozen_dataclass


@dataclass(frozen=True)
class Role:
    """One role.

    Args:
        name: of the table.
        kind: of the component that fills it, picked by the table's `name`. None: the trainer declares the table's
            options itself, in `role_configs`.
        build: `module:function` that `parts.build(name, *arguments)` calls, as `function(parts, role, *arguments)`.
            "": it is not built by itself.
        has_default: `default.toml` fills it where the configuration does not. Otherwise the configuration has to, or
            the trainer's `role_defaults`.
        comes_with: the role that brings it, so that no trainer has to name it.
        names_run: unless `run.name` is given, a run is called after this table's `name`.
    """

    name: str
    kind: str | None
    build: str = ""
    has_default: bool = False
    comes_with: str = ""
    names_run: bool = False


ROLES: dict[str, Role] = {
    role.name: role
    for role in (
        Role("dataset", "dataset", "spikecore.run.parts:component", has_default=True, names_run=True),
        Role("environment", None, names_run=True),
        Role("encoder", "encoder", "spikecore.run.parts:component", has_default=True),
        Role("model", "model", "spikecore.run.parts:model", has_default=True),
        Role("neuron", "neuron", "spikecore.run.parts:neuron", has_default=True),
        Role("backend", "backend", has_default=True, comes_with="neuron"),
    )
}

TABLES = ("run", *ROLES, "trainer", "plugins")
"""Every table that a configuration may have, in the order in which it is printed."""


def tables_for(roles: Iterable[str]) -> tuple[str, ...]:
    """The tables of a run whose trainer names these roles, in the order of `TABLES`."""
    named = set(roles)
    brought = {role.name for role in ROLES.values() if role.comes_with in named}
    return tuple(table for table in TABLES if table not in ROLES or table in named | brought)


def kind_of(table: str) -> str | None:
    """The kind of the component that a table's `name` picks; None for a table without."""
    if table == "trainer":
        return "trainer"
    return ROLES[table].kind if table in ROLES else None


@dataclass(frozen=True)
class OwnTable:
    """A table whose options are declared by the trainer; `check_options` takes it as it takes a component."""

    Config: type


@dataclass(frozen=True)
class Declared:
    """What a trainer says about its roles; a factory need not say anything.

    Args:
        roles: by name; anything but a tuple of names is reported in `problems`, and the trainer has no roles then.
        configs: role → the dataclass of its options.
        defaults: role → its table where the configuration says nothing.
        problems: what is wrong with the rest of its capabilities.
    """

    roles: tuple[str, ...]
    configs: Mapping[str, Any]
    defaults: Mapping[str, Mapping[str, Any]]
    problems: tuple[str, ...] = ()

    @classmethod
    def by(cls, trainer: Any) -> Declared:
        """The declarations of a trainer's class or factory."""
        configs, defaults = getattr(trainer, "role_configs", {}), getattr(trainer, "role_defaults", {})
        capabilities = trainer.capabilities
        roles = capabilities.roles if _are_names(capabilities.roles) else ()
        return cls(roles, configs, defaults, tuple(_capability_problems(trainer)))

    def tables(self) -> dict[str, OwnTable]:
        """The tables whose options the trainer declares; one that is declared wrongly is left to `role_problems`."""
        return {role: OwnTable(config) for role, config in self.configs.items() if is_frozen_dataclass(config)}


def _are_names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) for name in value)


def _capability_problems(trainer: Any) -> list[str]:
    """What a trainer promises that cannot be so; without its name."""
    capabilities, problems = trainer.capabilities, []
    for member in ("roles", "extendable"):
        value = getattr(capabilities, member, ())
        if not _are_names(value):
            problems.append(
                f'its capabilities.{member} must be a tuple of names, as in ("{value}",), got {value!r:.80}'
            )
    kinds = get_args(TaskKind)
    if (task := getattr(capabilities, "task", kinds[0])) not in kinds:
        near = difflib.get_close_matches(str(task), kinds, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        problems.append(f"its capabilities.task must be one of {', '.join(kinds)}, got {task!r:.80}{hint}")
    extendable = getattr(capabilities, "extendable", ())
    if _are_names(extendable) and dataclasses.is_dataclass(trainer.Config):
        options = [option.name for option in dataclasses.fields(trainer.Config)]
        problems += [
            f"its capabilities.extendable names {name!r}, which its Config does not have (options: "
            f"{', '.join(options) or 'none'})"
            for name in extendable
            if name not in options
        ]
    return problems


def role_problems(declared: Declared, name: str) -> list[str]:
    """What is wrong with what a trainer declares: a role does not exist, no kind of component fills it, or its
    capabilities are none.
    """
    who = f"trainer.name: trainer {name!r}"
    roles = declared.roles
    problems = [f"{who}: {problem}" for problem in declared.problems]
    for role in roles:
        if role not in ROLES:
            near = difflib.get_close_matches(role, ROLES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problems.append(f"{who} declares a role {role!r}, which does not exist{hint} (roles: {', '.join(ROLES)})")
        elif ROLES[role].kind is None and role not in declared.configs:
            problems.append(
                f"{who} declares the role {role!r}, which no kind of component fills, so the trainer has "
                f"to declare its options, role_configs = {{{role!r}: A_FROZEN_DATACLASS}}"
            )
    for role, config in declared.configs.items():
        if role not in roles or role not in ROLES:
            problems.append(f"{who} has role_configs for {role!r}, which its capabilities.roles do not name")
        elif ROLES[role].kind is not None:
            problems.append(f"{who} has role_configs for {role!r}, which a {ROLES[role].kind} fills")
        elif not is_frozen_dataclass(config):
            problems.append(f"{who}: its role_configs[{role!r}] must be a frozen dataclass, got {config!r}")
    known = tables_for(roles)
    strangers = [role for role in declared.defaults if role not in known]
    problems += [
        f"{who} has role_defaults for {role!r}, which its capabilities.roles do not name" for role in strangers
    ]
    return problems
