"""`spike eval`: the metrics of a finished run, from its saved weights."""

from __future__ import annotations

import click


@click.command()
@click.argument("run_dir", type=click.Path())
def command(run_dir: str) -> None:
    """Evaluate the net in RUN_DIR on its test split."""
    from spikecore.run.experiment import evaluate

    for name, value in evaluate(run_dir).items():
        click.echo(f"{name:14s} {value:.2%}" if name.endswith("accuracy") else f"{name:14s} {value:.4f}")
