"""`spike list-plugins`: what is installed, from metadata alone; `--check` also loads each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import click

from spikecore.kinds import KINDS
from spikecore.registry import Entry, registry

COLUMNS = ("plugin", "version", "distribution", "status", "kind", "name", "target", "summary")
CHECK_TIMEOUT_S = 120
CHECK = """
import sys
from spikecore.errors import PluginUnavailable
from spikecore.registry import load
try:
    load(sys.argv[1], sys.argv[2])
except PluginUnavailable as error:
    print(error); sys.exit(3)
except BaseException as error:
    print(error); sys.exit(4)
"""


@click.command()
@click.option("--kind", type=click.Choice(list(KINDS)), help="Only this kind.")
@click.option("--plugin", metavar="ID", help="Only this plugin, by id or distribution.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--check", is_flag=True, help="Load each component in a subprocess as well.")
def command(kind: str | None, plugin: str | None, form: str, check: bool) -> None:
    """List every component on offer, with its status."""
    rows = [
        _row(entry)
        for entry in registry().components(kind)
        if plugin is None or plugin in (entry.plugin.id, entry.plugin.distribution)
    ]
    if check:
        rows = [_checked(row) for row in rows]
    if form == "json":
        click.echo(json.dumps({"schema": 1, "components": rows}, indent=2))
    else:
        click.echo(_table(rows))


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


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    if row["status"] not in ("ok", "ambiguous", "shadowed"):
        return row
    call = [sys.executable, "-c", CHECK, row["kind"], f"{row['distribution']}:{row['name']}"]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return {**row, "status": "broken", "reason": f"did not load within {CHECK_TIMEOUT_S} s"}
    if done.returncode == 0:
        return row
    status = "unavailable" if done.returncode == 3 else "broken"
    return {**row, "status": status, "reason": done.stdout.strip() or done.stderr.strip()}


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [list(COLUMNS), *([str(row[column]) for column in COLUMNS] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(COLUMNS) - 1)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[-1]]) for line in cells]
    notes = [f"{row['kind']} {row['name']}: {row['status']}: {row['reason']}" for row in rows if row["reason"]]
    return "\n".join([*lines, *([""] if notes else []), *notes])
