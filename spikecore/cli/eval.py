"""`spike eval`: the metrics of a run, from its saved weights."""

from __future__ import annotations

import click


@click.command()
@click.argument("run_dir", type=click.Path())
@click.option("--checkpoint", default="last", show_default=True, help="`last`, `best` or a checkpoint's name.")
@click.option("--load", "files", metavar="FILE.py", multiple=True, help="As the run did. Repeatable.")
def command(run_dir: str, checkpoint: str, files: tuple[str, ...]) -> None:
    """Evaluate the net in RUN_DIR on its test split."""
    from spikecore.registry import registry
    from spikecore.run.experiment import evaluate

    for file in files:
        registry().load_file(file)
    for name, value in evaluate(run_dir, checkpoint).items():
        click.echo(f"{name:14s} {value:.2%}" if name.endswith("accuracy") else f"{name:14s} {value:.4f}")
