"""`spike list-plugins`: what is installed, from metadata alone; `--check` also loads each in a process of its own.

A plugin in a line or a few, with its components by kind; `--components` gives each component a line, with the first
sentence of its docstring, which is read from the source and not imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from spikecore.cli.output import say
from spikecore.foreign import printable
from spikecore.kinds import KINDS
from spikecore.registry import Entry, registry
from spikecore.terminal import listed, width

WIDEST = 100
"""Characters of a cell."""
MIN_SUMMARY = 20
"""A summary that would have less room than this is left out."""


@click.command()
@click.option("--kind", help="Only this kind, or this table of choices (loss).")
@click.option("--plugin", metavar="ID", help="Only this plugin, by id or distribution.")
@click.option("--components", is_flag=True, help="A line for each component, with its own summary.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--check", is_flag=True, help="Load each component in a subprocess as well.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=120.0, help="Seconds, for --check.")
def command(
    kind: str | None,
    plugin: str | None,
    components: bool,
    form: str,
    as_json: bool,
    check: bool,
    timeout: float,
) -> None:
    """List the plugins and what they offer: components, choices and commands, with their status."""
    if kind is not None and kind not in (allowed := [*KINDS, "command", *registry().tables()]):
        raise click.BadParameter(f"{kind!r} is not one of {', '.join(allowed)}", param_hint="--kind")
    entries = []
    for entry in registry().entries():
        # Modules of hooks are no components: they are listed only when `--kind` asks for them.
        is_wanted_kind = entry.kind == kind if kind else entry.kind != "plugin"
        is_wanted_plugin = plugin is None or plugin in (entry.plugin.id, entry.plugin.distribution)
        if is_wanted_kind and is_wanted_plugin:
            entries.append(entry)
    if plugin is not None and not entries and plugin not in _known():
        raise click.UsageError(f"no plugin {plugin!r} is installed (plugins: {', '.join(_known())})")
    rows = [_row(entry) for entry in entries]
    if check:
        rows = _with_outcomes(rows, entries, timeout)
    if as_json or form == "json":
        say(json.dumps({"schema": 1, "components": rows}, indent=2))
        return
    lines = _components(rows, width(sys.stdout)) if components else _plugins(rows, width(sys.stdout))
    say("\n".join([*lines, *_notes(rows)]))


def _known() -> list[str]:
    return sorted({name for plugin in registry().plugins() for name in (plugin.id, plugin.distribution)})


def _row(entry: Entry) -> dict[str, Any]:
    plugin = entry.plugin
    return {
        "plugin": plugin.id,
        "version": plugin.version,
        "distribution": plugin.distribution,
        "status": entry.status,
        "reason": entry.reason,
        "kind": entry.kind,
        "name": entry.name,
        "target": entry.target,
        "summary": plugin.summary,
    }


def _with_outcomes(rows: list[dict[str, Any]], entries: list[Entry], timeout: float) -> list[dict[str, Any]]:
    from spikecore.registry.probe import probe

    probes = probe(entries, registry().blocking, timeout_s=timeout).probes
    checked = []
    for row, outcome in zip(rows, probes, strict=True):
        if outcome.status != "ok":
            row = {**row, "status": outcome.status, "reason": outcome.reason}
        checked.append(row)
    return checked


def _by_plugin(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows below the head of their plugin: its id, version and distribution."""
    by_head: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        head = printable(f"{row['plugin']} {row['version']}  ({row['distribution']})", WIDEST)
        by_head.setdefault(head, []).append(row)
    return by_head


def _plugins(rows: list[dict[str, Any]], columns: int | None) -> Iterator[str]:
    """Below the head of each plugin its components by kind."""
    size = max((len(printable(row["kind"], WIDEST)) for row in rows), default=0)
    for head, offered in _by_plugin(rows).items():
        yield head
        by_kind: dict[str, list[str]] = {}
        for row in offered:
            by_kind.setdefault(printable(row["kind"], WIDEST), []).append(_name(row))
        for kind, names in by_kind.items():
            yield listed(f"  {kind:{size}}  ", names, columns)


def _components(rows: list[dict[str, Any]], columns: int | None) -> Iterator[str]:
    """Below the head of each plugin a line for each component; its summary is cut where the terminal ends."""
    from spikecore.registry.summaries import summary

    kind_size = max((len(printable(row["kind"], WIDEST)) for row in rows), default=0)
    name_size = max((len(_name(row)) for row in rows), default=0)
    room = WIDEST if columns is None else columns - kind_size - name_size - 7
    for head, offered in _by_plugin(rows).items():
        yield head
        for row in offered:
            text = printable(summary(row["target"]), room) if room >= MIN_SUMMARY else ""
            yield f"  {printable(row['kind'], WIDEST):{kind_size}}  {_name(row):{name_size}}  {text}".rstrip()


def _name(row: dict[str, Any]) -> str:
    name = printable(row["name"], WIDEST)
    return name if row["status"] == "ok" else f"{name} ({row['status']})"


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    """Why something is not ok, below an empty line."""
    notes = [
        printable(f"{row['kind']} {row['name']}: {row['status']}: {row['reason']}", 1000)
        for row in rows
        if row["reason"]
    ]
    return ["", *notes] if notes else []
