"""What a shell completes: kinds and names of components, keys of `--set`, run directories.

Only the keys of a component's own table import the component; all else reads metadata and directories.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from click import Context, Parameter
from click.shell_completion import CompletionItem

from spikecore.errors import SpikeError
from spikecore.registry import Entry, registry


def kinds_and_names(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Of `KIND NAME`: kinds first, then the names of that kind."""
    words = ctx.params.get(param.name or "") or ()
    if not words:
        return _complete(incomplete, dict.fromkeys(sorted({entry.kind for entry in _usable()}), ""))
    return _complete_names(words[0], incomplete) if len(words) == 1 else []


def qualified_names(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """`KIND:NAME` of every component, and plugins."""
    items = {f"{entry.kind}:{entry.name}": entry.plugin.id for entry in _usable()}
    return _complete(incomplete, {**items, **dict.fromkeys((plugin.id for plugin in registry().plugins()), "plugin")})


def plugins(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """The ids of installed plugins."""
    return _complete(incomplete, dict.fromkeys((plugin.id for plugin in registry().plugins()), ""))


def converters(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of installed converters."""
    return _complete_names("converter", incomplete)


def deployers(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of installed deployers."""
    return _complete_names("deployer", incomplete)


def datasets_and_files(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of installed datasets; where none begins so, files."""
    return _complete_names("dataset", incomplete) or [CompletionItem(incomplete, type="file")]


def run_directories(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Directories of runs, and those on the way to one."""
    from spikecore.run.record import FILE

    before, slash, begins = incomplete.rpartition("/")
    parent = before + slash
    try:
        children = sorted(child for child in Path(parent).expanduser().iterdir() if child.is_dir())
    except OSError:
        return []
    items = []
    for child in children:
        if child.name.startswith(begins) and (begins or not child.name.startswith(".")):
            path = parent + child.name
            if (child / FILE).is_file():
                items.append(CompletionItem(path, help="a run"))
            else:
                items.append(CompletionItem(f"{path}/"))
    return items


def settings(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """`TABLE.KEY=` of the configuration in CONFIG, or of the default; names and switches after the `=`.

    Where the configuration has a fault, nothing is offered: running it tells the fault.
    """
    from spikecore.interfaces.options import as_data
    from spikecore.registry import use
    from spikecore.run.config import resolve
    from spikecore.run.roles import kind_of

    # While the last option has no value, click leaves arguments where they are.
    source = ctx.params.get("config") or ctx.params.get("source") or next(iter(ctx.args), None)
    try:
        resolved = resolve(source, ctx.params.get(param.name or "") or ())
        with use(resolved.registry):
            tables = {table: as_data(config) for table, config in resolved.tables.items()}
    except (SpikeError, OSError):
        return []
    key, equals, value = incomplete.partition("=")
    if not equals:
        named = {f"{table}.name=": f"now {name}" for table, name in resolved.names.items()}
        keys = {f"{key}=": f"now {value}" for key, value in _leaves(tables)}
        return _complete(incomplete, dict(sorted({**named, **keys}.items())))
    table, _, last = key.rpartition(".")
    if last == "name" and (kind := kind_of(table)) is not None:
        return [CompletionItem(f"{key}={item.value}", help=item.help) for item in _complete_names(kind, value)]
    if isinstance(dict(_leaves(tables)).get(key), bool):
        return _complete(incomplete, {f"{key}={word}": "" for word in ("true", "false")})
    return []


def _leaves(tables: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its dotted key."""
    for name, value in tables.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _usable() -> list[Entry]:
    return [entry for entry in registry().entries() if entry.status == "ok"]


def _complete_names(kind: str, incomplete: str) -> list[CompletionItem]:
    names = {entry.name: entry.plugin.id for entry in _usable() if entry.kind == kind}
    return _complete(incomplete, dict(sorted(names.items())))


def _complete(incomplete: str, items: Mapping[str, str]) -> list[CompletionItem]:
    """The items that begin so, each with its help."""
    return [CompletionItem(value, help=text or None) for value, text in items.items() if value.startswith(incomplete)]
