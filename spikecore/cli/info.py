"""`spike info KIND NAME`: fields, types, defaults, capabilities and documentation of a component."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import click

from spikecore.cli.naming import kind_and_name
from spikecore.registry import name_of, registry


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND NAME")
def command(words: tuple[str, ...]) -> None:
    """Show the options, capabilities and documentation of KIND NAME (also KIND:NAME)."""
    kind, name = kind_and_name(words)
    entry = registry().find(kind, name)
    component = registry().load(kind, name)
    plugin = entry.plugin
    click.echo(f"{kind} {entry.name}  ({plugin.distribution} {plugin.version}, api_version {component.api_version})\n")
    click.echo(inspect.getdoc(component) or "(no documentation)")
    _section("options", _options(component))
    config_doc = inspect.getdoc(component.Config) or ""
    if config_doc and not config_doc.startswith(f"{component.Config.__name__}("):  # that is what dataclass writes
        click.echo("\n" + config_doc)
    _section("capabilities", _fields(component.capabilities))
    described = getattr(component, "info", None)
    if dataclasses.is_dataclass(described) and not isinstance(described, type):
        unverified = getattr(described, "unverified", ())
        _section("data", (line for line in _fields(described) if not line.startswith("unverified:")))
        if unverified:
            _section("not verified", (f"! {statement}" for statement in unverified))


def _section(title: str, lines: Iterator[str]) -> None:
    click.echo(f"\n{title}")
    for line in list(lines) or ["none"]:
        click.echo(f"  {line}")


def _options(component: Any) -> Iterator[str]:
    hints = get_type_hints(component.Config, include_extras=True)
    for field in dataclasses.fields(component.Config):
        if field.default is not dataclasses.MISSING:
            default = f" = {_shown(field.default)}"
        elif field.default_factory is not dataclasses.MISSING:
            default = f" = {_shown(field.default_factory())}"
        else:
            default = "  (required)"
        yield f"{field.name}: {_type(hints[field.name])}{default}"


def _fields(instance: Any) -> Iterator[str]:
    for field in dataclasses.fields(instance) if instance is not None else ():
        value = getattr(instance, field.name)
        if isinstance(value, tuple) and value and all(map(dataclasses.is_dataclass, value)):
            yield f"{field.name}:"
            yield from (f"  {item}" for item in value)
        else:
            yield f"{field.name}: {_shown(value)}"


def _type(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        plain, *notes = get_args(hint)
        return " ".join([_type(plain), *map(str, notes)])
    if isinstance(hint, type) and not get_args(hint):
        return hint.__name__
    return str(hint).replace("typing.", "")


def _shown(value: Any) -> str:
    if hasattr(value, "config") and dataclasses.is_dataclass(value.config):
        fields = dataclasses.fields(value.config)
        return f"{name_of(value)}({', '.join(f'{f.name}={getattr(value.config, f.name)!r}' for f in fields)})"
    return repr(value)
