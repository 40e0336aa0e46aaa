"""`spike new-plugin`: a complete plugin package to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from spikecore.cli.output import say
from spikecore.kinds import KINDS


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), required=True, help="What the plugin's component is.")
@click.option(
    "--dest",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="this directory",
    help="Where the directory NAME is made.",
)
@click.option(
    "--core",
    default="",
    metavar="PLACE",
    help="Where the plugin's CI gets spikecore: a path, a wheel or a URL; git+https://HOST/spikecore@TAG is a version.",
)
def command(name: str, kind: str, dest: Path, core: str) -> None:
    """Make the plugin package NAME with one working component, its tests and its metadata.

    NAME is lower-case words joined by '-', such as fast-leaky-neuron.
    """
    from spikecore.scaffold import collisions, names_for, render

    names = names_for(name, kind)
    directory = render(name, kind, dest, core)
    say(f"made {directory}: {names.distribution} with the {kind} {names.component!r}, class {names.class_name}")
    for note in collisions(names, kind):
        say(f"note: {note}", is_error=True)
    if not core:
        say("note: its CI needs the repository variable SPIKECORE, or make it with --core PLACE", is_error=True)
    say(f"  pip install -e {shlex.quote(f'{directory}[testing]')}")
    say(f"  spike info {kind} {names.component}")
    say(f"  spike test {kind}:{names.component}")
    say(f"  pytest {shlex.quote(str(directory / 'tests'))}")
