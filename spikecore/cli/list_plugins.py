"""`spike list-plugins`: what is installed, from metadata alone; `--check` also loads each in a process of its own."""

from __future__ import annotations

import json
from typing import Any

import click

from spikecore.foreign import printable
from spikecore.kinds import KINDS
from spikecore.registry import Entry, registry

COLUMNS = ("plugin", "version", "distribution", "status", "kind", "name", "target", "summary")
WIDEST = 100
"""Characters of a cell."""


@click.command()
@click.option("--kind", help="Only this kind, or this table of choices (loss).")
@click.option("--plugin", metavar="ID", help="Only this plugin, by id or distribution.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--check", is_flag=True, help="Load each component in a subprocess as well.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=120.0, help="Seconds, for --check.")
def command(kind: str | None, plugin: str | None, form: str, check: bool, timeout: float) -> None:
    """List every component, choice and command on offer, with its status."""
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
    if form == "json":
        click.echo(json.dumps({"schema": 1, "components": rows}, indent=2))
    else:
        click.echo(_table(rows))


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


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [list(COLUMNS), *map(_cells, rows)]
    # The last column is of any width.
    widths = [max(len(line[index]) for line in cells) for index in range(len(COLUMNS) - 1)]
    lines = []
    for *others, last in cells:
        padded = [cell.ljust(width) for cell, width in zip(others, widths, strict=True)]
        lines.append("  ".join([*padded, last]))
    notes = [_note(row) for row in rows if row["reason"]]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _cells(row: dict[str, Any]) -> list[str]:
    return [printable(row[column], WIDEST) for column in COLUMNS]


def _note(row: dict[str, Any]) -> str:
    return printable(f"{row['kind']} {row['name']}: {row['status']}: {row['reason']}", 1000)
