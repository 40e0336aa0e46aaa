"""`spike compare`: several runs as a table, and their curves over one another."""

from __future__ import annotations

import click

from spikecore.cli import completing
from spikecore.cli.output import say


@click.command()
@click.argument(
    "run_dirs",
    nargs=-1,
    required=True,
    metavar="RUN_DIR...",
    type=click.Path(),
    shell_complete=completing.run_directories,
)
@click.option("--out", metavar="FILE.html", type=click.Path(), help="Write a page with the curves; none without it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: of each run its metrics and what differs.")
def command(run_dirs: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Compare runs: their metrics, the settings in which they differ, and their curves."""
    import json
    import sys
    from pathlib import Path

    from spikecore.run import compare
    from spikecore.terminal import width

    runs = compare.read([Path(path) for path in run_dirs])
    head, lines = compare.rows(runs)
    if out is not None:
        compare.write(runs, Path(out))
    if as_json:
        say(json.dumps(compare.to_plain(runs), indent=2))
        return
    say(compare.table_text(head, lines, width(sys.stdout)))
    say(f"curves  {out}" if out is not None else "curves  none written; --out FILE.html writes a page with them")
