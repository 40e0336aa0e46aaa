"""`spike profile`: what a net costs, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spikecore.cli import completing
from spikecore.cli.output import say

if TYPE_CHECKING:
    from spikecore.run.kept_profile import Profile


@click.command()
@click.argument("source", required=False, metavar="CONFIG|RUN_DIR", type=click.Path())
@click.option(
    "--set",
    "overrides",
    metavar="TABLE.KEY=VALUE",
    multiple=True,
    shell_complete=completing.settings,
    help="Change one value of it. Repeatable.",
)
@click.option("--checkpoint", default="last", show_default=True, help="Of RUN_DIR: `last`, `best` or a name.")
@click.option(
    "--split",
    default="test",
    show_default=True,
    type=click.Choice(["val", "test", "train"]),
    help="Where the samples come from.",
)
@click.option("--samples", type=click.IntRange(1), default=32, show_default=True, help="Counted, at most.")
@click.option("--device", default="cpu", show_default=True, help="`cpu`, `cuda` or `cuda:N`.")
@click.option("--energy", metavar="MODEL", default="horowitz-fp32", show_default=True, help="Of the table's column.")
@click.option(
    "--calls", type=click.IntRange(0), default=5, show_default=True, help="Timed calls of each layer; 0 for none."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every model of energy.")
@click.option("--html", metavar="FILE.html", type=click.Path(path_type=Path), help="Write a page with bar charts.")
@click.option("--load", "files", metavar="FILE.py", multiple=True, help="As the run did. Repeatable.")
def command(
    source: str | None,
    overrides: tuple[str, ...],
    checkpoint: str,
    split: str,
    samples: int,
    device: str,
    energy: str,
    calls: int,
    as_json: bool,
    html: Path | None,
    files: tuple[str, ...],
) -> None:
    """Count operations, memory accesses, state and energy of a net on samples of its data, and time its layers.

    Of a configuration the net has its first weights, of a run directory those of a checkpoint. Beside it stands the
    artificial net of the same shape. A run directory keeps the figures, and its report shows them. Formulas and
    units: docs/reference/operations.md.
    """
    import json

    from spikecore.analysis.operations import energy_model
    from spikecore.errors import ConfigError
    from spikecore.files import cure, write_file
    from spikecore.registry import registry
    from spikecore.run.profile import profile

    chosen = energy_model(energy)
    for file in files:
        registry().load_file(file)
    result = profile(
        source,
        checkpoint=checkpoint,
        split=split,
        overrides=overrides,
        num_samples=samples,
        device=device,
        num_calls=calls,
    )
    if html is not None:
        from spikecore.analysis.operations_page import operations_page

        title = f"What {result.source} costs"
        try:
            write_file(html, operations_page(title, result.operations, result.ann, result.remark))
        except OSError as error:
            raise ConfigError(f"--html {html}: cannot be written: {cure(error)}") from error
    if source is not None:
        _keep(Path(source), result)
    if as_json:
        say(json.dumps(result.to_plain()))
        return
    _show(result, chosen.name)


def _keep(directory: Path, result: Profile) -> None:
    """In the directory of a run, for its report; one that cannot be written to is measured all the same."""
    from spikecore.files import cure
    from spikecore.run.kept_profile import FILE, keep
    from spikecore.run.record import FILE as RECORD
    from spikecore.run.report import FILE as REPORT
    from spikecore.run.report import write_report

    if not (directory / RECORD).is_file():
        return  # a configuration, or a converted net
    try:
        keep(directory, result)
        if (directory / REPORT).is_file():
            write_report(directory)
    except OSError as error:
        say(f"warning: {directory / FILE}: not kept for the report: {cure(error)}", is_error=True)


def _show(result: Profile, energy: str) -> None:
    import sys

    from spikecore.analysis.operations import ENERGY_MODELS
    from spikecore.terminal import width, wrapped

    operations, columns = result.operations, width(sys.stdout)
    say(operations.table(energy, columns))
    say(wrapped(f"per sample, over T = {operations.num_steps} steps; {result.remark}", columns))
    sparsity = (
        f"activation sparsity {operations.activation_sparsity:.4f}, connection sparsity "
        f"{operations.connection_sparsity:.4f}, footprint {operations.footprint} bytes"
    )
    say(wrapped(sparsity, columns))
    for name, model in ENERGY_MODELS.items():
        own = operations.energy_pj(name) / 1000
        beside = "" if result.ann is None else f", ANN {result.ann.energy_pj(name) / 1000:.4g} nJ"
        say(wrapped(f"{name:14s} {own:.4g} nJ{beside}  ({model.source})", columns))
    if operations.uncounted:
        say(f"warning: products within {', '.join(operations.uncounted)} are not counted", is_error=True)
