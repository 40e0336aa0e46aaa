"""`spike compare`: several runs as a table, and their curves over one another."""

from __future__ import annotations

import click


@click.command()
@click.argument("run_dirs", nargs=-1, required=True, metavar="RUN_DIR...", type=click.Path())
@click.option("--out", default="compare.html", show_default=True, type=click.Path(), help="Page with the curves.")
def command(run_dirs: tuple[str, ...], out: str) -> None:
    """Compare runs: their metrics, the settings in which they differ, and their curves."""
    from pathlib import Path

    from spikecore.run import compare

    runs = compare.read([Path(path) for path in run_dirs])
    head, lines = compare.rows(runs)
    compare.write(runs, Path(out))
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    for line in [head, *lines]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    click.echo(f"curves  {out}")
