"""`spike info KIND NAME`: fields, types, defaults, capabilities and documentation of a component.

`spike info format [NAME]`: the formats of files that the installed plugins read.
"""

from __future__ import annotations

import sys

import click

from spikecore.cli import completing
from spikecore.cli.describe import describe
from spikecore.cli.naming import kind_and_name
from spikecore.cli.output import say
from spikecore.cli.recording import readers
from spikecore.registry import registry
from spikecore.registry.nearest import did_you_mean
from spikecore.terminal import filled, width, wrapped


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND NAME", shell_complete=completing.kinds_and_names)
@click.option(
    "--load", "files", metavar="FILE.py", multiple=True, help="Run a file of @register components. Repeatable."
)
def command(words: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Show the options, capabilities and documentation of KIND NAME (also KIND:NAME).

    `spike info format` lists the formats of files that `spike view FILE` reads.
    """
    for file in files:
        registry().load_file(file)
    if words[0] == "format":
        _show_formats(words[1:])
        return
    described = describe(*kind_and_name(words))
    entry, plugin = described.entry, described.entry.plugin
    version = "" if described.api_version is None else f", api_version {described.api_version}"
    say(f"{entry.kind} {entry.name}  ({plugin.distribution} {plugin.version}{version})\n")
    columns = width(sys.stdout)
    say(filled(described.text, columns))
    for section in described.sections:
        say(f"\n{section.title}")
        for option in section.options:
            head, *text = (f"  {line}" for line in option.lines())
            say(wrapped(head, columns))
            if text:
                say(filled("\n".join(text), columns))
        if not section.options:
            for line in section.lines or ["none"]:
                say(wrapped(f"  {line}", columns))
        if section.title == "options" and described.remarks:
            say("\n" + filled(described.remarks, columns))


def _show_formats(names: tuple[str, ...]) -> None:
    """All formats in a line each, or those of these names with all that is known of them."""
    formats = {form.name: form for reader in readers() for form in reader.formats()}
    if not formats:
        raise click.UsageError("no installed plugin reads files of recordings")
    if not names:
        longest = max(map(len, formats))
        for form in formats.values():
            line = f"{form.name:<{longest}}  {form.title}  ({', '.join(form.suffixes)})"
            say(wrapped(line, width(sys.stdout)))
        say("\nspike info format NAME shows one of them, spike view FILE a recording")
        return
    for name in names:
        if name not in formats:
            raise click.UsageError(f"no format {name!r}{did_you_mean(name, formats)} (formats: {', '.join(formats)})")
        form = formats[name]
        say(f"format {form.name}: {form.title}\n")
        for what, text in (("suffixes", ", ".join(form.suffixes)), *form.facts):
            say(wrapped(f"  {what:<14} {text}", width(sys.stdout)))
