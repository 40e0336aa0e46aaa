"""`spike which KIND NAME`: where a component comes from, and who else offers the name."""

from __future__ import annotations

import inspect

import click

from spikecore.registry import registry


@click.command()
@click.argument("kind")
@click.argument("name")
def command(kind: str, name: str) -> None:
    """Show target, file and line, distribution and rivals of KIND NAME."""
    entry = registry().find(kind, name)
    component = registry().load(kind, name)
    source = inspect.unwrap(component)
    click.echo(f"{kind} {entry.name}")
    click.echo(f"  target        {entry.target}")
    click.echo(f"  file          {inspect.getsourcefile(source)}:{inspect.getsourcelines(source)[1]}")
    click.echo(f"  distribution  {entry.plugin.distribution} {entry.plugin.version}")
    rivals = [other for other in registry().components(kind) if other.name == entry.name and other != entry]
    for rival in rivals:
        click.echo(f"  rival         {rival.qualified} ({rival.status})")
    click.echo(f"  {inspect.getdoc(component) or ''}".split("\n", 1)[0])
