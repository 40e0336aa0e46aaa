"""`spike convert`: a trained net into a spiking or quantized one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spikecore.cli import completing
from spikecore.cli.output import say

if TYPE_CHECKING:
    from spikecore.interfaces.converter import Points
    from spikecore.run.conversion import Conversion


@click.command()
@click.argument("name", shell_complete=completing.converters)
@click.argument("source")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory to write; must be new or empty.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="An option of NAME. Repeatable.")
@click.option(
    "--weights", type=click.Path(path_type=Path), help="With FILE.py:FUNCTION: safetensors that the net is given."
)
@click.option(
    "--data",
    metavar="DATA",
    help="Calibration inputs: a dataset's name (its training split), or a .safetensors or .npy file [N, ...]. "
    "[default: the training split of the run]",
)
@click.option("--samples", type=click.IntRange(1), default=512, show_default=True, help="Calibration inputs, at most.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Of a calibration batch.")
@click.option(
    "--compare",
    type=click.IntRange(0),
    default=64,
    show_default=True,
    help="Inputs, of the test split where there is one, on which the decisions of both nets are compared.",
)
@click.option(
    "--input-shape", metavar="C,H,W", help="Of one sample, where NAME needs no data and SOURCE does not tell it."
)
@click.option(
    "--checkpoint", default="last", show_default=True, help="Of a run: `last`, `best` or a checkpoint's name."
)
@click.option(
    "--load", "files", metavar="FILE.py", multiple=True, help="Run a file of @register components. Repeatable."
)
def command(
    name: str,
    source: str,
    out: Path,
    settings: tuple[str, ...],
    weights: Path | None,
    data: str | None,
    samples: int,
    batch_size: int,
    compare: int,
    input_shape: str | None,
    checkpoint: str,
    files: tuple[str, ...],
) -> None:
    """Convert the net of SOURCE with the converter NAME.

    SOURCE is a run directory, a directory that spike convert wrote, FILE.py:FUNCTION, a function that makes the net
    (FILE.py is run), or a file that NAME reads, such as net.onnx. A net without state is converted as one that takes
    batches [B, ...], one with state as one that takes sequences [T, B, ...].

    --out holds the new net, which spikecore.load(DIR) reads without the data, converted.json: what became of every
    call of the given net, and report.html: the same as a page, with accuracy and correlation against T.

    \b
    spike convert NAME runs/ann --out DIR
    spike convert NAME net.py:make --weights net.safetensors --data digits --out DIR

    Exit status: 0 done; 1 the converter breaks its contract, and nothing was written; 2 it refuses the net, or the
    source, the data or an option cannot be used.
    """
    from spikecore.cli.out import require_empty
    from spikecore.cli.shape import parse_shape
    from spikecore.registry import create
    from spikecore.run.converted import load_files
    from spikecore.run.overrides import parse_settings

    require_empty(out)
    shape = None if input_shape is None else parse_shape(input_shape)
    load_files(files, Path(source))
    converter = create("converter", name, **parse_settings(settings))

    from spikecore.run.calibration import calibration_of
    from spikecore.run.comparison import inputs_of
    from spikecore.run.conversion import convert, example_of, source_of

    given = source_of(source, weights, checkpoint, converter)
    needs_data = converter.capabilities.needs_calibration or data is not None
    calibration = calibration_of(given, data, samples, batch_size) if needs_data else None
    inputs = inputs_of(given, data, calibration, compare, lambda text: say(text, is_error=True))
    _show(convert(converter, name, given, calibration, example_of(given, calibration, shape), out, inputs))


COLUMNS = ("name", "outcome", "threshold", "corr.", "rate", "what")
OPTIONAL = ("threshold", "corr.", "rate")
"""Columns that are left out where the converter says nothing for any layer."""


def _show(conversion: Conversion) -> None:
    from spikecore.run.conversion import PAGE

    rows = [COLUMNS]
    for layer in conversion.report.layers:
        correlation = f"{layer.correlation[-1]:.3f}" if layer.correlation else ""
        rate = "" if layer.rate is None else f"{layer.rate:.3f}"
        rows.append((layer.name, layer.outcome, layer.threshold_text, correlation, rate, layer.reason))
    columns: list[int] = []
    for column, heading in enumerate(COLUMNS):
        if heading not in OPTIONAL or any(row[column] for row in rows[1:]):
            columns.append(column)
    widths = [max(len(row[column]) for row in rows) for column in columns[:-1]]
    for row in rows:
        cells = [row[column] for column in columns]
        say("  ".join([*map(str.ljust, cells, widths), cells[-1]]).rstrip())
    for name, points in conversion.report.curves.items():
        say(f"{name}: {_some(points)}")
    for name, value in conversion.report.numbers.items():
        say(f"{name}: {value:.4g}")
    if conversion.agreement is not None:
        say(f"decisions  {conversion.agreement:.2%} as those of the given net ({conversion.compared})")
    say(f"directory  {conversion.directory}")
    say(f"report     {conversion.directory / PAGE}")


def _some(points: Points) -> str:
    """Points at powers of two, and the last one."""
    chosen = [(x, y) for x, y in points[:-1] if _is_power_of_two(int(x))] + list(points[-1:])
    return ", ".join(f"{x:g}: {y:.4g}" for x, y in chosen)


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number.bit_count() == 1
