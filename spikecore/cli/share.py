"""`spike share`: the net of a run as config.json and model.safetensors."""

from __future__ import annotations

from pathlib import Path

import click

from spikecore.cli import completing
from spikecore.cli.output import say


@click.command()
@click.argument("run_dir", type=click.Path(), shell_complete=completing.run_directories)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory to write; must be new or empty.")
@click.option("--checkpoint", default="last", show_default=True, help="`last`, `best` or a checkpoint's name.")
def command(run_dir: str, out: Path, checkpoint: str) -> None:
    """Write the net of RUN_DIR for others: config.json and model.safetensors, which spikecore.load(DIR) reads.

    The directory is laid out like a model of the Hugging Face hub, and holds nothing of the run's data.
    """
    from spikecore.cli.out import require_empty
    from spikecore.errors import ConfigError
    from spikecore.files import cure

    require_empty(out)

    from spikecore.run.shared import share

    try:
        share(run_dir, out, checkpoint)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {cure(error)}") from error
    say(f"directory  {out}")
