"""`spike info KIND NAME`: fields, types, defaults, capabilities and documentation of a component."""

from __future__ import annotations

import dataclasses
import inspect

import click

from spikecore.registry import registry


@click.command()
@click.argument("kind")
@click.argument("name")
def command(kind: str, name: str) -> None:
    """Show the options, capabilities and documentation of KIND NAME."""
    entry = registry().find(kind, name)
    component = registry().load(kind, name)
    click.echo(f"{kind} {entry.name}  ({entry.plugin.distribution} {entry.plugin.version})\n")
    click.echo(inspect.getdoc(component) or "(no documentation)")
    click.echo("\noptions")
    for field in dataclasses.fields(component.Config):
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory
        shown = "required" if default is dataclasses.MISSING else f"= {default!r}"
        click.echo(f"  {field.name}: {field.type} {shown}")
    click.echo("\ncapabilities")
    for field in dataclasses.fields(component.capabilities):
        click.echo(f"  {field.name} = {getattr(component.capabilities, field.name)!r}")
