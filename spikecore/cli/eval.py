"""`spike eval`: the metrics of a run, from its saved weights."""

from __future__ import annotations

import click

from spikecore.cli import completing
from spikecore.cli.output import say


@click.command()
@click.argument("run_dir", type=click.Path(), shell_complete=completing.run_directories)
@click.option("--checkpoint", default="last", show_default=True, help="`last`, `best` or a checkpoint's name.")
@click.option(
    "--split",
    default="test",
    show_default=True,
    type=click.Choice(["val", "test", "train"]),
    help="The samples to measure on, without augmentation. A run without data has no splits: leave it out, and the net "
    "is measured in its environment.",
)
@click.option(
    "--set",
    "overrides",
    metavar="TABLE.KEY=VALUE",
    multiple=True,
    help="Of the backend (backend.name=torch), the dataset or the encoder; run.precision. Repeatable.",
)
@click.option(
    "--other-samples",
    is_flag=True,
    help="Allow a --set that may change which samples a split holds: some may have been trained on.",
)
@click.option("--device", help="`cpu`, `cuda` or `cuda:N`, in place of the run's own.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: metrics, split, checkpoint, device.")
@click.option("--load", "files", metavar="FILE.py", multiple=True, help="As the run did. Repeatable.")
def command(
    run_dir: str,
    checkpoint: str,
    split: str,
    overrides: tuple[str, ...],
    other_samples: bool,
    device: str | None,
    as_json: bool,
    files: tuple[str, ...],
) -> None:
    """Measure the net in RUN_DIR on a split of its data, or in its environment.

    RUN_DIR may also be a directory that spike convert wrote from a run: its net is measured on the data of that run.
    """
    import json
    from pathlib import Path

    from spikecore.run.converted import load_files
    from spikecore.run.experiment import evaluate
    from spikecore.run.joining import is_left_to_another
    from spikecore.run.text import aligned_value_text

    if is_left_to_another():  # one process measures, and says so once
        return
    load_files(files, Path(run_dir))
    result = evaluate(run_dir, checkpoint, split=split, overrides=overrides, device=device, other_samples=other_samples)
    if result.other_samples:
        changed = ", ".join(result.other_samples)
        say(f"warning: {changed} may change which samples {split!r} holds: some may be trained on", is_error=True)
    if as_json:
        say(json.dumps(result.to_plain()))
        return
    for name, value in result.metrics.items():
        say(f"{name:14s} {aligned_value_text(name, value)}")
