"""`spike bench`: how fast neurons run on each backend, after a check that all compute the same."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from spikecore.cli.output import say
from spikecore.foreign import printable

if TYPE_CHECKING:
    from spikecore.bench.session import Plan

ALL = "all"
DTYPES = ("float32", "float64", "float16", "bfloat16")


class Shape(click.ParamType):  # type: ignore[type-arg]
    """`T,B,N`."""

    name = "T,B,N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            sizes = tuple(int(part) for part in value.split(","))
        except ValueError:
            sizes = ()
        if len(sizes) != 3 or min(sizes) < 1:
            self.fail(f"expected three positive sizes T,B,N, as in 16,32,4096; got {value!r}", param, ctx)
        return sizes


class Seconds(click.FloatRange):
    """A finite number of seconds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"expected a number of seconds, got {value}", param, ctx)
        return seconds


@click.command()
@click.option("--backend", "backends", metavar="NAME", multiple=True, help="Only this one and eager. Repeatable.")
@click.option("--neuron", "neurons", metavar="NAME", multiple=True, help="Default: lif. `all`: every elementwise one.")
@click.option("--shape", "shapes", type=Shape(), multiple=True, help="Instead of the five usual ones. Repeatable.")
@click.option("--device", metavar="DEVICE", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Of the input.")
@click.option("--peers", is_flag=True, help="Other libraries, a hand-written loop and torch.compile as well.")
@click.option("--compile-steps", type=click.IntRange(min=0), default=16, show_default=True, help="Longest T for it.")
@click.option("--nets", is_flag=True, help="Layers, a small net and deep stacks at given firing rates as well.")
@click.option("--full", is_flag=True, help="64,64,16384 as well: larger than the caches.")
@click.option("--quick", is_flag=True, help="Tiny shapes, few rounds, no fresh processes: to see that all works.")
@click.option("--seconds", type=Seconds(min=0), help="Time per cell; by default so that all takes 2 minutes.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch; by default as torch decides.")
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False), help="Write a row per measurement.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--load", "files", metavar="FILE.py", multiple=True, help="Run a file of @register components. Repeatable."
)
def command(
    device: str, csv_file: str | None, as_json: bool, files: tuple[str, ...], threads: int | None, **options: Any
) -> None:
    """Measure neurons on every usable backend, compared with eager torch.

    The outputs and gradients of each backend are first compared with those of eager torch. A backend that differs is
    not timed, and the exit status is 1. Ratios are those of medians over interleaved rounds.
    """
    from spikecore.registry import registry

    for file in files:
        registry().load_file(file)
    for kind, names in (("backend", options["backends"]), ("neuron", options["neurons"])):
        for name in names:
            if (kind, name) != ("neuron", ALL):
                registry().find(kind, name)  # report a typo before importing torch, which takes seconds
    import torch

    from spikecore.bench import rows as table
    from spikecore.bench.session import Session
    from spikecore.bench.show import show

    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise click.UsageError(f"--device {device}: {str(error).splitlines()[0]}") from error
    if threads is not None:
        torch.set_num_threads(threads)
    if csv_file is not None:
        table.check_writable(csv_file)
    plan = _plan(place, **options)
    session = Session(plan, tell=_tell)
    # Before measuring, which would itself raise the load average.
    common = table.environment(torch.get_num_threads(), str(place))
    report = session.run()
    _tell("")
    records = table.as_records(report.rows, common)
    if csv_file is not None:
        table.write_csv(csv_file, records, (*table.COLUMNS, *common))
    if as_json:
        say(json.dumps({"schema": 1, "rows": records, "notes": report.notes}, indent=2))
    else:
        show(report, common)
    sys.exit(1 if report.failed else 0)


def _tell(text: str) -> None:
    """A line that the next one overwrites; silent unless on a terminal."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{printable(text)}", err=True, nl=False)


def _plan(
    device: Any,
    backends: tuple[str, ...],
    neurons: tuple[str, ...],
    shapes: tuple[tuple[int, ...], ...],
    dtype: str,
    peers: bool,
    compile_steps: int,
    nets: bool,
    full: bool,
    quick: bool,
    seconds: float | None,
) -> Plan:
    import torch

    from spikecore.bench import cases
    from spikecore.bench.session import Plan
    from spikecore.bench.timing import Effort

    neurons = neurons or ("lif",)
    if not shapes:
        shapes = (cases.MANY_NEURONS_SHAPE,) if ALL in neurons else cases.SHAPES
        shapes = cases.QUICK_SHAPES if quick else shapes
    if full:
        shapes = (*shapes, cases.BEYOND_CACHES)
    plan = Plan(
        neurons, shapes, backends, device, getattr(torch, dtype), with_peers=peers, with_nets=nets,
        with_fresh=not quick, is_quick=quick, compile_steps=compile_steps,
    )  # fmt: skip
    if quick:
        return replace(plan, effort=Effort(seconds or 0.0, least=3, most=3))
    return plan if seconds is None else replace(plan, effort=Effort(seconds))
