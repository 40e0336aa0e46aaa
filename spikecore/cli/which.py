"""`spike which KIND NAME`: where a component comes from, and who else offers the name."""

from __future__ import annotations

import inspect
from typing import Any

import click

from spikecore.cli import completing
from spikecore.cli.naming import kind_and_name
from spikecore.cli.output import say
from spikecore.foreign import printable
from spikecore.registry import registry


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND NAME", shell_complete=completing.kinds_and_names)
@click.option(
    "--load", "files", metavar="FILE.py", multiple=True, help="Run a file of @register components. Repeatable."
)
def command(words: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Show target, file and line, distribution and rivals of KIND NAME (also KIND:NAME)."""
    for file in files:
        registry().load_file(file)
    kind, name = kind_and_name(words)
    entry = registry().find(kind, name)
    component = registry().load(kind, name)
    plugin = entry.plugin
    _say(f"{kind} {entry.name}")
    _say(f"  target        {entry.target}")
    _say(f"  file          {_place(component)}")
    _say(f"  distribution  {plugin.distribution} {plugin.version}")
    _say(f"  installed in  {plugin.path or plugin.source}")
    for rival in registry().entries():
        if (rival.kind, rival.name) == (entry.kind, entry.name) and rival != entry:
            _say(f"  rival         {rival.qualified} ({rival.status})")
    _say(f"  {inspect.getdoc(component) or ''}".split("\n", 1)[0])


def _say(line: str) -> None:
    say(printable(line, 1000))


def _place(component: Any) -> str:
    source = inspect.unwrap(component)
    try:
        return f"{inspect.getsourcefile(source)}:{inspect.getsourcelines(source)[1]}"
    except (OSError, TypeError):
        return "no Python source"
