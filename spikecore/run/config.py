"""From TOML to checked component configs: every fault at once, each with its dotted path."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from spikecore.errors import ConfigError, PluginError, SpikeError
from spikecore.interfaces.component import Range, check_options
from spikecore.interfaces.trainer import DEFAULT_ROLES
from spikecore.registry import Registry, name_of, registry, use
from spikecore.registry.blocking import ALL
from spikecore.registry.known import KNOWN
from spikecore.registry.metadata import normalise
from spikecore.run.roles import ROLES, TABLES, Declared, kind_of, role_problems, tables_for

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHANGEABLE = ("checkpoint_every_s", "checkpoint_every_steps", "keep_last", "keep_best", "report")
"""Keys of `[run]` that may change when a run is resumed: none of them changes what is computed."""
DEVICES = ("auto", "cpu", "cuda")


class RunOptions:
    """The `[run]` table."""

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            name: first part of the run directory's name; unless it is given, that of the dataset or environment, or
                else the trainer's.
            seed: of initial weights, data order and encoders.
            device: `auto` takes a GPU where there is one; `cpu`, `cuda` or `cuda:N` insist.
            precision: `bfloat16` computes under autocast.
            checkpoint_every_s: seconds between checkpoints inside an epoch; 0 makes one at every safe point. Every
                evaluation makes one anyway.
            checkpoint_every_steps: safe points (optimizer steps) between them as well; 0 leaves it to the clock.
            keep_last: how many of the newest checkpoints stay.
            keep_best: the checkpoint with the highest score stays too.
            report: write `report.html` at the end.
        """

        name: str = "run"
        seed: Annotated[int, Range(ge=0, lt=2**32)] = 0
        device: str = "auto"
        precision: Literal["float32", "bfloat16"] = "float32"
        checkpoint_every_s: Annotated[float, Range(ge=0)] = 600.0
        checkpoint_every_steps: Annotated[int, Range(ge=0)] = 0
        keep_last: Annotated[int, Range(ge=1)] = 2
        keep_best: bool = True
        report: bool = True


class AutoOptions:
    """The `[backend]` table where `name` is `auto`: each neuron gets the first backend that can, with its defaults."""

    @dataclass(frozen=True)
    class Config:
        pass


class PluginOptions:
    """The `[plugins]` table."""

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            disable: plugins to switch off for this run, by id or distribution.
        """

        disable: tuple[str, ...] = ()


AUTO_BACKEND = ("backend", "auto")
OWN_TABLES: Mapping[str, Any] = {"run": RunOptions, "plugins": PluginOptions}


@dataclass(frozen=True)
class Resolved:
    """A configuration with every default filled in.

    Args:
        tables: table → its frozen Config, of the tables that this run has; where the table's `name` picks a component,
            the component's.
        names: table → registered name of its component; `backend` → that of the backend, or `auto`.
        registry: where these components come from: the one in use, without the plugins that the config disables.
    """

    tables: Mapping[str, Any]
    names: Mapping[str, str]
    registry: Registry = field(compare=False)

    def options(self, table: str) -> dict[str, Any]:
        """Keywords of the component."""
        config = self.tables[table]
        return {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}

    def to_toml(self) -> str:
        """Valid TOML that resolves to this configuration."""
        lines: list[str] = []
        for table in self.tables:
            lines += ["", f"[{table}]"]
            if table in self.names:
                lines.append(f"name = {_toml(self.names[table])}")
            lines += [f"{name} = {_toml(value)}" for name, value in self.options(table).items()]
        return "\n".join(lines[1:]) + "\n"


def resolve(
    source: Mapping[str, Any] | str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    only: Sequence[str] | None = None,
) -> Resolved:
    """Merge the embedded default, the trainer's own defaults, `source` and the `--set` overrides; check the result.

    Args:
        source: tables, or a TOML file; None takes the default alone.
        overrides: `table.key=value` with a TOML value; a bare word is a string.
        only: resolve these tables and ignore all others, also where what they name is not installed.

    Raises:
        ConfigError: everything that is wrong, one line per fault.
    """
    problems: list[str] = []
    changes = [copy.deepcopy(dict(source)) if isinstance(source, Mapping) else _read(source)]
    for text in overrides:
        try:
            changes.append(_override(text))
        except ConfigError as error:
            problems += error.problems
    tables = _defaults()
    for change in changes:
        problems += _merge(tables, change)
    active = registry()
    plugins, wrong = check_options(PluginOptions, tables["plugins"])
    if not wrong:  # what is wrong is told below, with the other tables
        problems += _disable_problems(active, plugins.disable)
        try:
            active = active.without(plugins.disable)
        except PluginError as error:
            problems.append(f"plugins.disable: {error}")
    own: dict[str, Any] = dict(OWN_TABLES)
    with use(active):
        if only is not None:
            wanted = tuple(table for table in TABLES if table in only)
        else:
            trainer = _trainer(active, tables)
            if trainer is not None and trainer.defaults:
                tables = _defaults()
                for change in (dict(trainer.defaults), *changes):
                    _merge(tables, change)  # its problems are known from the first time
            given = [table for table in ROLES if any(table in change for change in changes)]
            wanted, wrong_roles = _wanted(trainer, str(tables["trainer"].get("name", "")), given)
            problems += wrong_roles
            if trainer is not None:
                own |= trainer.tables()
        if "run" in wanted and "name" not in tables["run"]:
            tables["run"]["name"] = _run_name(tables, wanted, own)
        configs, names, wrong_tables = _checked(active, tables, wanted, own)
    problems += wrong_tables
    if "run" in wanted:
        problems += _run_problems(tables["run"])
    if problems:
        raise ConfigError(problems)
    return Resolved(configs, names, active)


def _defaults() -> dict[str, Any]:
    return tomllib.loads(files("spikecore.run").joinpath("default.toml").read_text())


def _trainer(active: Registry, tables: Mapping[str, Any]) -> Declared | None:
    """What the trainer declares; None where there is none: that is told with the table `[trainer]`."""
    try:
        return Declared.by(active.load("trainer", str(tables["trainer"].get("name", ""))))
    except SpikeError:
        return None


def _wanted(trainer: Declared | None, name: str, given: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The tables of this run, and what is wrong with those that were `given`."""
    if trainer is None:  # which tables it would use is unknown, so every table that is given is checked
        return tables_for([*DEFAULT_ROLES, *(table for table in given if kind_of(table))]), []
    wanted = tables_for(trainer.roles)
    used = ", ".join(f"[{table}]" for table in wanted)
    unused = [
        f"[{table}]: trainer {name!r} has no use for this table; leave it out (its tables: {used})"
        for table in given
        if table not in wanted
    ]
    return wanted, [*role_problems(trainer, name), *unused]


def _run_name(tables: Mapping[str, Any], wanted: Sequence[str], own: Mapping[str, Any]) -> str:
    """After the dataset or the environment where one has a name, else after the trainer."""
    for role in ROLES.values():
        if role.names_run and role.name in wanted:
            default = getattr(own[role.name].Config, "name", "") if role.name in own else ""
            if name := _file_name(tables.get(role.name, {}).get("name", default)):
                return name
    return _file_name(tables["trainer"].get("name", "")) or "run"


def _file_name(name: Any) -> str:
    return re.sub(r"[^\w.-]+", "-", str(name)).strip(".-")


def _checked(
    active: Registry, tables: Mapping[str, Any], wanted: Sequence[str], own: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Config by table, component name by table, and everything that is wrong."""
    configs: dict[str, Any] = {}
    names: dict[str, str] = {}
    problems: list[str] = []
    for table in wanted:
        options = dict(tables.get(table, {}))
        is_named = kind_of(table) is not None
        component: Any = own.get(table)
        if is_named:
            if not options.get("name"):
                problems.append(f"[{table}]: this run needs the table; set {table}.name to a {kind_of(table)}")
                continue
            names[table] = str(options.pop("name"))
            try:
                component = _component(active, table, names[table])
            except SpikeError as error:
                problems.append(f"{table}.name: {error}")
                continue
        elif component is None:
            continue  # a role that the trainer does not fill, which `role_problems` tells
        configs[table], wrong = check_options(component, options)
        if component is AutoOptions:
            wrong = [(option, "'auto' takes no options; set backend.name as well") for option, _ in wrong]
        if is_named:  # whose key `name` is no option
            wrong = [(option, text + _name_hint(option, text)) for option, text in wrong]
        problems += [f"{table}.{option}: {text}" for option, text in wrong]
    return configs, names, problems


def refuse_changes(before: Resolved, after: Resolved) -> None:
    """Allow what may change in the middle of a run: how its files are kept, and a longer schedule where the trainer's
    `capabilities.extendable` names it.

    Raises:
        ConfigError: one line per key that may not.
    """
    extendable = after.registry.load("trainer", after.names["trainer"]).capabilities.extendable
    problems = []
    for table in TABLES:
        if before.names.get(table) != after.names.get(table):
            old_name, new_name = before.names.get(table, "none"), after.names.get(table, "none")
            problems.append(f"{table}.name: {old_name!r} cannot become {new_name!r} in a run")
            continue
        if table not in before.tables or table not in after.tables:
            continue  # neither trainer has it, or the trainer changed, which is refused above
        old, new = before.options(table), after.options(table)
        for key in (key for key in new if old[key] != new[key]):
            if table == "trainer" and key in extendable:
                if new[key] < old[key]:
                    problems.append(f"trainer.{key}: may only grow when a run is resumed, from {old[key]!r}")
            elif table != "run" or key not in CHANGEABLE:
                problems.append(f"{table}.{key}: cannot change in the middle of a run, from {old[key]!r}")
    if problems:
        allowed = ", ".join([*(f"trainer.{key}" for key in extendable), *(f"run.{key}" for key in CHANGEABLE)])
        raise ConfigError([*problems, f"with --resume, --set may change {allowed}; for the rest start a new run"])


def tables_of(text: str) -> dict[str, Any]:
    """The tables of a TOML text."""
    return tomllib.loads(text)


def _run_problems(table: Mapping[str, Any]) -> list[str]:
    problems = []
    device, name = str(table.get("device", "auto")), str(table.get("name", "run"))
    if device not in DEVICES and not (device.startswith("cuda:") and device[5:].isdigit()):
        problems.append(f"run.device: must be 'auto', 'cpu', 'cuda' or 'cuda:N'; got {device!r}")
    if not name or name != Path(name).name or name.startswith(".") or not name.isprintable():
        problems.append(f"run.name: must be a plain file name, since the run directory begins with it; got {name!r}")
    return problems


def _disable_problems(active: Registry, names: Sequence[str]) -> list[str]:
    """A slip of the pen would leave a plugin on, without a word."""
    installed = {normalise(name) for plugin in active.plugins() for name in (plugin.id, plugin.distribution)}
    known = {ALL, *installed, *(form for name in KNOWN.values() for form in (name, f"spikecore-{name}"))}
    return [
        f"plugins.disable: {name!r} is not installed (plugins: {', '.join(sorted(installed))})"
        for name in names
        if normalise(name) not in known
    ]


def _name_hint(option: str, text: str) -> str:
    near = difflib.get_close_matches(option, ["name"], cutoff=0.7)
    return "; did you mean 'name'?" if near and text.startswith("is unknown") else ""


def _component(active: Registry, table: str, name: str) -> Any:
    return AutoOptions if (table, name) == AUTO_BACKEND else active.load(str(kind_of(table)), name)


def _merge(tables: dict[str, Any], change: Mapping[str, Any]) -> list[str]:
    problems = []
    for table, values in change.items():
        if table not in TABLES:
            near = difflib.get_close_matches(table, TABLES, n=1)
            meant = f"; did you mean [{near[0]}]?" if near else ""
            problems.append(f"{table}: no such table{meant} (tables: {', '.join(TABLES)})")
        elif not isinstance(values, Mapping):
            problems.append(f"{table}: must be a table, got {values!r}")
        else:
            before = tables.setdefault(table, {}).get("name")
            if kind_of(table) is not None and values.get("name", before) != before:
                tables[table] = {}  # another component: the old one's options do not apply to it
            tables[table] |= values
    return problems


def _read(path: str | Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not tables:
        raise ConfigError(f"{path}: is empty; `spike run --print-config` prints a whole one to start from")
    return tables


def _override(text: str) -> dict[str, Any]:
    path, equals, value = text.partition("=")
    parts = path.strip().split(".")
    if not equals or len(parts) != 2 or not all(parts):
        raise ConfigError(f"--set {text}: write table.key=value, as in --set trainer.epochs=5")
    return {parts[0]: {parts[1]: parse_value(value)}}


def parse_value(text: str) -> Any:
    """A value given on the command line: TOML, or else plain text."""
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    return found["value"] if len(found) == 1 else text.strip()  # more than a value: a line too many


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's short escapes are TOML's; its surrogate pairs are not, and TOML also wants DEL escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if hasattr(value, "config"):
        fields = {item.name: getattr(value.config, item.name) for item in dataclasses.fields(value.config)}
        inner = [f"name = {_toml(name_of(value))}", *(f"{name} = {_toml(item)}" for name, item in fields.items())]
        return f"{{ {', '.join(inner)} }}"
    if dataclasses.is_dataclass(value) and hasattr(value, "name"):  # one of a OneOf
        fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        return f"{{ {', '.join(f'{name} = {_toml(item)}' for name, item in {'name': value.name, **fields}.items())} }}"
    return repr(value)
