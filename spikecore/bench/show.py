"""The terminal: a table of at most 100 columns per neuron and measure."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from spikecore.bench.cases import FORWARD, TRAINING
from spikecore.bench.rows import FAILED, OK, UNAVAILABLE, UNSUPPORTED, Row
from spikecore.bench.session import Report

WIDTH = 100
NEURONS_TITLE = "neurons (/ lif: time per byte that must move, relative to lif on the same candidate)"


class _Console(Console):
    """A pipe that is closed early ends this as any other command; rich would exit by itself."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def show(report: Report, common: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the tables, then what was left out and why."""
    console = console or _Console(width=WIDTH, highlight=False)
    state = f", {common['git_state']}" if common.get("git_commit") else ""
    console.print(
        f"{common['device_name']}, threads {common['threads']}, torch {common['torch']}, "
        f"spikecore {common['spikecore']} {common.get('git_commit', '')[:9]}{state}, load {common['load_average']}"
    )
    measured = [row for row in report.rows if row.status not in (UNAVAILABLE, UNSUPPORTED)]
    neurons = list(dict.fromkeys(row.subject for row in measured if row.ps_per_byte is not None))
    alone = [row for row in measured if row.subject not in neurons[1:]]
    for (subject, measure), rows in groupby(sorted(alone, key=_order(alone)), lambda row: (row.subject, row.measure)):
        console.print(_table(f"{subject}: {measure}", list(rows)))
    if len(neurons) > 1:
        console.print(_neurons([row for row in measured if row.subject in neurons]))
    for line in _left_out(report):
        console.print(line, soft_wrap=True, markup=False)


def _order(rows: Iterable[Row]) -> Callable[[Row], int]:
    """A key for sorting: subjects and measures in the order in which the report has them."""
    keys = dict.fromkeys((row.subject, row.measure) for row in rows)
    place = {key: index for index, key in enumerate(keys)}
    return lambda row: place[row.subject, row.measure]


def _table(title: str, rows: list[Row]) -> Table:
    table = Table(title=title, title_justify="left", width=None, padding=(0, 1), box=None, header_style="bold")
    table.add_column("T,B,N", no_wrap=True)
    table.add_column("candidate", no_wrap=True)
    for head in ("ms", "p10-p90", "CPU ms", "× eager", "× floor", "MiB", "cold / warm"):
        table.add_column(head, justify="right", no_wrap=True)
    for shape, group in groupby(rows, lambda row: row.shape):
        for index, row in enumerate(group):
            table.add_row(shape if index == 0 else "", *_cells(row), end_section=False)
    return table


def _neurons(rows: list[Row]) -> Table:
    """Every neuron compared with LIF: the cost of its arithmetic beyond the bytes that it moves."""
    table = Table(title=NEURONS_TITLE, title_justify="left", padding=(0, 1), box=None, header_style="bold")
    for head in ("neuron", "T,B,N", "candidate"):
        table.add_column(head, no_wrap=True)
    for head in ("forward ms", "× eager", "/ lif", "fwd+bwd ms", "× eager", "/ lif"):
        table.add_column(head, justify="right", no_wrap=True)
    places: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        if row.measure in (FORWARD, TRAINING):
            places.setdefault((row.subject, row.shape, row.candidate), {})[row.measure] = row
    for place, by_measure in places.items():
        cells: list[str] = []
        for row in by_measure.values():
            cells += map(number, (row.wall_ms, row.times_faster, row.per_byte_of_lif))
        table.add_row(*place, *cells)
    return table


def _cells(row: Row) -> list[str]:
    if row.status == FAILED:
        return [row.candidate, "FAILED", "", "", "", "", "", ""]
    spread = "" if row.wall_ms_p10 is None else f"{number(row.wall_ms_p10)}-{number(row.wall_ms_p90)}"
    first = " / ".join(number(value) for value in (row.first_cold_ms, row.first_warm_ms) if value is not None)
    return [
        row.candidate,
        number(row.wall_ms),
        spread,
        number(row.cpu_ms),
        number(row.times_faster),
        number(row.times_floor),
        number(row.peak_mib),
        first,
    ]


def number(value: float | None) -> str:
    """Three significant digits without an exponent; "" for nothing."""
    if value is None:
        return ""
    if not value:
        return "0"
    digits = 2 - math.floor(math.log10(abs(float(f"{value:.3g}"))))
    return f"{value:.{max(digits, 0)}f}"


def _left_out(report: Report) -> Iterator[str]:
    said: dict[str, None] = {}  # a set that keeps its order: the same line is true of many rows
    for row in report.rows:
        where = " ".join(part for part in (row.subject, row.shape) if part)
        if row.status == FAILED:
            said[f"FAILED {row.candidate} on {where}, {row.measure}, not timed: {row.reason}"] = None
        elif row.status == UNSUPPORTED:
            said[f"{row.candidate} on {where}: {row.reason}"] = None
        elif row.status == UNAVAILABLE:
            said[f"{row.kind} {row.candidate} cannot be used here: {row.reason}"] = None
        elif row.status == OK and row.kind == "peer" and row.compared:
            said[f"{row.candidate} {row.version}: {row.compared}"] = None
    yield from said
    yield from report.notes
