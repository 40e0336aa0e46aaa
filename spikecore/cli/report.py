"""`spike report`: a run as one HTML page, made again from the files in its directory."""

from __future__ import annotations

import click

from spikecore.cli import completing
from spikecore.cli.output import say


@click.command()
@click.argument("run_dir", type=click.Path(), shell_complete=completing.run_directories)
@click.option("--out", metavar="FILE.html", type=click.Path(), help="Where to; by default report.html in RUN_DIR.")
def command(run_dir: str, out: str | None) -> None:
    """Make the report of RUN_DIR again; nothing is trained, and a run that died has one too."""
    from pathlib import Path

    from spikecore.errors import ConfigError
    from spikecore.files import cure
    from spikecore.run.report import FILE, write_report

    try:
        path = write_report(Path(run_dir), Path(out) if out else None)
    except OSError as error:
        raise ConfigError(f"{out or Path(run_dir, FILE)}: cannot be written: {cure(error)}, or give --out") from error
    say(f"report  {path}")
