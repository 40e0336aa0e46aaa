"""`spike test KIND:NAME`: prove that a component keeps the contract of its kind."""

from __future__ import annotations

import sys

import click

from spikecore.cli.naming import kind_and_name
from spikecore.cli.settings import parsed


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND:NAME")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="An option of the component. Repeatable.")
@click.option("--json", "json_file", type=click.Path(), help="Write the report to this file.")
@click.option(
    "--load", "files", metavar="FILE.py", multiple=True, help="Run a file of @register components. Repeatable."
)
def command(words: tuple[str, ...], settings: tuple[str, ...], json_file: str | None, files: tuple[str, ...]) -> None:
    """Run the conformance suite of KIND on the component KIND:NAME.

    Exit status: 0 it conforms; 1 a check failed, or too few were executed; 2 there is no such component, or it cannot
    be used here.
    """
    import json
    from pathlib import Path

    from spikecore.registry import registry
    from spikecore.testing.proving import prove
    from spikecore.testing.report import summary

    kind, name = kind_and_name(words)
    for file in files:
        registry().load_file(file)
    found = prove(kind, name, parsed(settings), quiet=False)
    click.echo(summary(found))
    if json_file is not None:
        try:
            Path(json_file).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise click.UsageError(f"--json {json_file}: cannot be written: {error}") from error
    sys.exit(0 if found["ok"] else 1)
