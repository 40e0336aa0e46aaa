"""From TOML to checked component configs: every fault at once, each with its dotted path."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from spikecore.documents import MOST_TOML_BYTES, DocumentError, parse_toml
from spikecore.errors import ConfigError, PluginError, SpikeError
from spikecore.files import read_file
from spikecore.interfaces.component import Range, SameAs, check_options
from spikecore.interfaces.options import as_data, fields_of, options_marked
from spikecore.interfaces.trainer import DEFAULT_ROLES
from spikecore.kinds import KINDS
from spikecore.registry import Registry, registry, use
from spikecore.registry.blocking import ALL
from spikecore.registry.metadata import normalise
from spikecore.registry.nearest import nearest
from spikecore.run.overrides import dropped_options, expand_keys, join_changes, merge, parse_override
from spikecore.run.roles import ROLES, TABLES, Declared, kind_of, role_problems, tables_for

CHANGEABLE = ("checkpoint_every_s", "checkpoint_every_steps", "keep_last", "keep_best", "report")
"""Keys of `[run]` that may change when a run is resumed: none of them changes what is computed."""
DEVICES = ("auto", "cpu", "cuda")
WEIGHTS = "weights"
"""The key of a model's table that names what its nets start from."""


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
            precision: `bfloat16` and `float16` compute under autocast; with `float16` the trainer scales the loss.
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
        precision: Literal["float32", "bfloat16", "float16"] = "float32"
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
        given: `table.key` of what the user set, as opposed to what is a default.
        weights: table → what its nets start from: a name among the model's `weights()`, or a file.
        dropped: one line for each table of which overrides named another component (or choice inside), so that options
            that the source gave do not apply.
    """

    tables: Mapping[str, Any]
    names: Mapping[str, str]
    registry: Registry = field(compare=False)
    given: frozenset[str] = field(default=frozenset(), compare=False)
    weights: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = field(default=(), compare=False)

    def options(self, table: str) -> dict[str, Any]:
        """Keywords of the component."""
        return fields_of(self.tables[table])

    def to_toml(self) -> str:
        """Valid TOML that resolves to this configuration."""
        lines: list[str] = []
        for table in self.tables:
            lines += ["", f"[{table}]"]
            if table in self.names:
                lines.append(f"name = {_toml(self.names[table])}")
            if table in self.weights:
                lines.append(f"{WEIGHTS} = {_toml(self.weights[table])}")
            with use(self.registry):
                data = as_data(self.tables[table])
            lines += [f"{name} = {_toml(value)}" for name, value in data.items()]
        return "\n".join(lines[1:]) + "\n"


def resolve(
    source: Mapping[str, Any] | str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    only: Sequence[str] | None = None,
) -> Resolved:
    """Merge the embedded default, the trainer's own defaults, `source` and the `--set` overrides; check the result.

    Args:
        source: tables, or a TOML file; None takes the default alone. A key may be dotted, as an override is.
        overrides: `table.key=value` with a TOML value; a bare word is a string. See `run.overrides`.
        only: resolve these tables and ignore all others, also where what they name is not installed.

    Raises:
        ConfigError: everything that is wrong, one line per fault.
    """
    problems: list[str] = []
    together: dict[str, Any] = {}
    for text in overrides:
        try:
            together = join_changes(together, parse_override(text))
        except ConfigError as error:
            problems += error.problems
    given_tables = expand_keys(copy.deepcopy(dict(source))) if isinstance(source, Mapping) else _read(source)
    changes = [given_tables, together]
    tables = _defaults()
    problems += _merge(tables, given_tables)
    dropped = _dropped(given_tables, tables, together)
    problems += _merge(tables, together)
    active = registry()
    plugins, wrong = check_options(PluginOptions, tables["plugins"])
    if not wrong:  # the problems are reported below, with those of the other tables
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
                for change in (dict(trainer.defaults), given_tables):
                    _merge(tables, change)  # its problems are known from the first time
                dropped = _dropped(given_tables, tables, together)
                _merge(tables, together)
            given = [table for table in ROLES if any(table in change for change in changes)]
            wanted, wrong_roles = _choose_tables(trainer, str(tables["trainer"].get("name", "")), given)
            problems += wrong_roles
            if trainer is not None:
                own |= trainer.tables()
        if "run" in wanted and "name" not in tables["run"]:
            tables["run"]["name"] = _run_name(tables, wanted, own)
        weights, wrong_weights = _weights(active, tables, wanted)
        configs, names, wrong_tables = _check_tables(active, tables, wanted, own)
    problems += [*wrong_weights, *wrong_tables]
    if "run" in wanted:
        problems += _run_problems(tables["run"])
    if problems:
        raise ConfigError(problems)
    given_keys: set[str] = set()
    for change in changes:
        for table in configs:
            given_keys.update(f"{table}.{key}" for key in change.get(table, {}))
    lines = tuple(line for table, line in dropped.items() if table in configs)
    return Resolved(configs, names, active, frozenset(given_keys), weights, lines)


def _defaults() -> dict[str, Any]:
    return parse_toml(files("spikecore.run").joinpath("default.toml").read_text())


def _trainer(active: Registry, tables: Mapping[str, Any]) -> Declared | None:
    """What the trainer declares; None where there is no such trainer, which the check of `[trainer]` reports."""
    try:
        return Declared.by(active.load("trainer", str(tables["trainer"].get("name", ""))))
    except SpikeError:
        return None


def _choose_tables(trainer: Declared | None, name: str, given: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The tables of this run, and what is wrong with those that were `given`."""
    if trainer is None:  # which tables it would use is unknown, so every table that is given is checked
        return tables_for([*DEFAULT_ROLES, *(table for table in given if kind_of(table))]), []
    wanted = tables_for(trainer.roles)
    used = ", ".join(f"[{table}]" for table in wanted)
    problems = list(role_problems(trainer, name))
    problems += [
        f"[{table}]: trainer {name!r} has no use for this table; leave it out (its tables: {used})"
        for table in given
        if table not in wanted
    ]
    return wanted, problems


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


def _weights(active: Registry, tables: dict[str, Any], wanted: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Take what nets start from out of the tables, since it is no option of the model; and what is wrong with it."""
    weights: dict[str, str] = {}
    problems = []
    for table in wanted:
        kind, options = kind_of(table), tables.get(table, {})
        if kind is None or WEIGHTS not in KINDS[kind].keywords or WEIGHTS not in options:
            continue
        try:
            config = active.load(kind, str(options.get("name"))).Config
        except SpikeError:
            continue  # there is no such model, which the check of its name reports
        if any(own.name == WEIGHTS for own in dataclasses.fields(config)):
            continue  # the model has an option of this name
        tables[table] = {key: value for key, value in options.items() if key != WEIGHTS}
        value = options[WEIGHTS]
        if not isinstance(value, str):
            problems.append(
                f"{table}.{WEIGHTS}: must be the name of weights that ship with the model, or a file; got {value!r}"
            )
        elif value:  # an empty one takes back what a file says
            weights[table] = value
    return weights, problems


def _check_tables(
    active: Registry, tables: Mapping[str, Any], wanted: Sequence[str], own: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Config by table, component name by table, and everything that is wrong."""
    configs: dict[str, Any] = {}
    names: dict[str, str] = {}
    problems: list[str] = []
    without: tuple[str, ...] = ()
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
        usable = {name: config for name, config in configs.items() if name not in without}
        configs[table], wrong = check_options(component, {**_shared_options(component, usable), **options})
        if table == "dataset" and getattr(component, "is_sequence", False) is True:
            without = ("encoder",)  # the samples have a length of their own
        if component is AutoOptions:
            wrong = [(option, "'auto' takes no options; set backend.name as well") for option, _ in wrong]
        if is_named:  # whose key `name` is no option
            wrong = [(option, text + _name_hint(option, text)) for option, text in wrong]
        for option, text in wrong:  # a problem of the options together names none of them
            place = f"{table}.{option}" if option else table
            problems.append(f"{place}: {text}")
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
        if before.weights.get(table) != after.weights.get(table):
            problems.append(f"{table}.{WEIGHTS}: cannot change in the middle of a run")
        old, new = before.options(table), after.options(table)
        for key in new:
            if old[key] == new[key]:
                continue
            if table == "trainer" and key in extendable:
                if new[key] < old[key]:
                    problems.append(f"trainer.{key}: may only grow when a run is resumed, from {old[key]!r}")
            elif table != "run" or key not in CHANGEABLE:
                problems.append(f"{table}.{key}: cannot change in the middle of a run, from {old[key]!r}")
    if problems:
        allowed = [f"trainer.{key}" for key in extendable]
        allowed += [f"run.{key}" for key in CHANGEABLE]
        raise ConfigError(
            [*problems, f"with --resume, --set may change {', '.join(allowed)}; for the rest start a new run"]
        )


def tables_of(text: str) -> dict[str, Any]:
    """The tables of a TOML text."""
    return parse_toml(text)


def _run_problems(table: Mapping[str, Any]) -> list[str]:
    problems = []
    device, name = str(table.get("device", "auto")), str(table.get("name", "run"))
    if device not in DEVICES and not re.fullmatch(r"cuda:(0|[1-9][0-9]*)", device):
        problems.append(f"run.device: must be 'auto', 'cpu', 'cuda' or 'cuda:N'; got {device!r}")
    if not name or name != Path(name).name or name.startswith(".") or not name.isprintable():
        problems.append(f"run.name: must be a plain file name, since the run directory begins with it; got {name!r}")
    return problems


def _disable_problems(active: Registry, names: Sequence[str]) -> list[str]:
    """What is not installed may be named, since one file serves many machines; a typo would leave a plugin enabled."""
    installed = {normalise(name) for plugin in active.plugins() for name in (plugin.id, plugin.distribution)}
    problems = []
    for name in names:
        near = difflib.get_close_matches(normalise(name), {ALL, *installed}, n=1)
        if near and near[0] != normalise(name):
            plugins = ", ".join(sorted(installed))
            problems.append(
                f"plugins.disable: {name!r} is not installed; did you mean {near[0]!r}? (plugins: {plugins})"
            )
    return problems


def _name_hint(option: str, text: str) -> str:
    # Nearer than "did you mean" wants elsewhere: `num` or `game` are not a misspelt `name`.
    near = difflib.get_close_matches(option, ["name"], cutoff=0.7)
    return "; did you mean 'name'?" if near and text.startswith("is unknown") else ""


def _shared_options(component: Any, configs: Mapping[str, Any]) -> dict[str, Any]:
    """Options marked `SameAs` another table's, with their values there."""
    values = {}
    for option, mark in options_marked(component.Config, SameAs):
        table, _, key = mark.path.partition(".")
        if hasattr(configs.get(table), key):
            values[option] = getattr(configs[table], key)
    return values


def _component(active: Registry, table: str, name: str) -> Any:
    return AutoOptions if (table, name) == AUTO_BACKEND else active.load(str(kind_of(table)), name)


def _merge(tables: dict[str, Any], change: Mapping[str, Any]) -> list[str]:
    problems = []
    for table, values in change.items():
        if table not in TABLES:
            near = nearest(table, TABLES)
            meant = f"; did you mean [{near[0]}]?" if near else ""
            problems.append(f"{table}: no such table{meant} (tables: {', '.join(TABLES)})")
        elif not isinstance(values, Mapping):
            problems.append(f"{table}: must be a table, got {values!r}")
        else:
            try:
                tables[table] = merge(tables.get(table), values, table, is_named=kind_of(table) is not None)
            except ConfigError as error:
                problems += error.problems
    return problems


def _dropped(given: Mapping[str, Any], tables: Mapping[str, Any], together: Mapping[str, Any]) -> dict[str, str]:
    """Table → which of its options that the source gave the overrides drop, and what to do; where they drop one."""
    lines = {}
    for table, change in together.items():
        if table not in TABLES or not isinstance(given.get(table), Mapping):
            continue  # a table that does not exist is reported elsewhere
        is_named = kind_of(table) is not None
        if options := dropped_options(given[table], tables.get(table), change, table, is_named):
            does = "does" if len(options) == 1 else "do"
            lines[table] = (
                f"{', '.join(options)} of the configuration {does} not apply: the component that --set names begins "
                f"with its own defaults. Give again what it should have, as in --set {options[0]}=VALUE"
            )
    return lines


def _read(path: str | Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        data = read_file(Path(path), MOST_TOML_BYTES, follows_link=True)
        tables = parse_toml(data.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except DocumentError as error:
        raise ConfigError(f"{path}: {error}; is it the right file?") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: does not exist") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if not tables:
        raise ConfigError(f"{path}: is empty; `spike run --print-config` prints a whole one to start from")
    return tables


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's short escapes are TOML's; its surrogate pairs are not, and TOML also wants DEL escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, Mapping):
        pairs = [f"{_toml_key(key)} = {_toml(item)}" for key, item in value.items()]
        return f"{{ {', '.join(pairs)} }}"
    return repr(value)


def _toml_key(key: str) -> str:
    """A key as TOML has it: quoted, unless it is of letters, digits, `_` and `-`."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)
