"""Several runs beside each other: a table, and their curves over one another."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from spikecore.analysis import figures, page
from spikecore.errors import ConfigError
from spikecore.files import cure, write_file
from spikecore.run.log import finite, read_lines
from spikecore.run.processes import flatten
from spikecore.run.record import FINISHED, Record, status_of
from spikecore.run.report import EPOCH, curves_by_name
from spikecore.run.text import SPLIT_NAMES, seconds_text, value_text
from spikecore.terminal import listed

SEED = "run.seed"
SAMPLES = "/".join(SPLIT_NAMES)
"""Heading of the samples in each split."""
NOTHING = "–"
"""In a cell of what a run does not have."""


@dataclass(frozen=True)
class Compared:
    """What is shown of one run."""

    name: str
    status: str
    metrics: Mapping[str, Any]
    settings: Mapping[str, str]
    curves: Mapping[str, Sequence[tuple[float, float | None]]]
    samples: Mapping[str, int]
    """Split → how many samples it held."""
    seconds: float | None


def read(directories: Sequence[Path]) -> list[Compared]:
    """The runs, by names that tell them apart.

    Raises:
        ConfigError: one is no run directory, or is given twice.
    """
    names = _names(directories)
    return [_read(path, name) for path, name in zip(directories, names, strict=True)]


def rows(runs: Sequence[Compared]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of a table: metrics, time and samples, then the settings in which the runs differ.

    Runs that differ in nothing but the seed are followed by a line with their mean ± standard deviation (n - 1).
    """
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    differing = _differing_settings(runs)
    have_samples = any(run.samples for run in runs)
    samples_head = [SAMPLES] if have_samples else []
    lines: list[list[str]] = []
    for run in runs:
        line = [run.name, run.status]
        line += [_metric_text(run, name) for name in metrics]
        line.append(NOTHING if run.seconds is None else seconds_text(run.seconds))
        if have_samples:
            line.append(_samples(run))
        line += [run.settings.get(key, NOTHING) for key in differing]
        lines.append(line)
    for group in _same_but_seed(runs):
        line = [f"mean of {len(group)} seeds", ""]
        line += [_mean_text(name, group) for name in metrics]
        line += ["", *("" for _ in samples_head)]  # neither time nor samples have a mean
        shared = {**group[0].settings, SEED: ", ".join(run.settings[SEED] for run in group)}
        line += [shared.get(key, NOTHING) for key in differing]
        lines.append(line)
    return ["run", "status", *metrics, "time", *samples_head, *differing], lines


def _metric_text(run: Compared, name: str) -> str:
    return value_text(name, run.metrics[name]) if name in run.metrics else NOTHING


def _samples(run: Compared) -> str:
    """`809/90/898`, in the order of the heading."""
    if not run.samples:
        return NOTHING
    return "/".join(str(run.samples.get(split, NOTHING)) for split in SPLIT_NAMES)


def _same_but_seed(runs: Sequence[Compared]) -> list[list[Compared]]:
    """The groups of at least two finished runs that have equal settings but the seed."""
    groups: dict[frozenset[tuple[str, str]], list[Compared]] = {}
    for run in runs:
        if run.status == FINISHED and SEED in run.settings:
            rest = {key: value for key, value in run.settings.items() if key != SEED}
            groups.setdefault(frozenset(rest.items()), []).append(run)
    of_several_seeds: list[list[Compared]] = []
    for group in groups.values():
        # The same seed twice is the same run twice: no deviation to speak of.
        seeds = {run.settings[SEED] for run in group}
        if len(seeds) > 1:
            of_several_seeds.append(group)
    return of_several_seeds


def _mean_text(name: str, group: Sequence[Compared]) -> str:
    """Mean ± standard deviation of a metric; none where a run does not have it, or it was not finite."""
    values = [run.metrics.get(name) for run in group]
    numbers = [float(value) for value in values if value is not None]
    if len(numbers) < len(values):
        return NOTHING
    return f"{value_text(name, statistics.mean(numbers))} ± {value_text(name, statistics.stdev(numbers))}"


def to_plain(runs: Sequence[Compared]) -> dict[str, Any]:
    """Plain JSON data: metrics, and the settings in which the runs differ, as text; what is not finite is None."""
    differing = _differing_settings(runs)
    shown: list[dict[str, Any]] = []
    for run in runs:
        outcome = {
            "run": run.name,
            "status": run.status,
            "metrics": {name: finite(value) for name, value in run.metrics.items()},
            "seconds": run.seconds,
            "samples": dict(run.samples),
            "settings": {key: run.settings.get(key) for key in differing},
        }
        shown.append(outcome)
    return {"schema": 1, "runs": shown}


def _differing_settings(runs: Sequence[Compared]) -> list[str]:
    """The settings that are not the same in all runs."""
    values: dict[str, set[str | None]] = {}
    for run in runs:
        for key in run.settings:
            if key not in values:
                values[key] = {other.settings.get(key) for other in runs}
    return [key for key, different in values.items() if len(different) > 1]


def table_text(head: Sequence[str], lines: Sequence[Sequence[str]], width: int | None) -> str:
    """The table for a terminal: a run in each line where that fits, else in each column, else one below the other.

    Args:
        head, lines: of `rows`.
        width: columns of the terminal; None where lines may be as long as they need be.
    """
    across = _columns([head, *lines])
    if width is None or max(map(len, across)) < width:
        return "\n".join(across)
    down = _columns(list(zip(head, *lines, strict=True)))
    if max(map(len, down)) < width:
        return "\n".join(down)
    label = max(map(len, head)) + 2
    blocks = []
    for line in lines:
        texts = zip(head, line, strict=True)
        block = [listed(f"{name:{label}}", text.split(", "), width) for name, text in texts]
        blocks.append("\n".join(block))
    return "\n\n".join(blocks)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def write(runs: Sequence[Compared], out: Path) -> None:
    """The table and the overlaid curves as one page.

    Raises:
        ConfigError: `out` is no `.html` file, or cannot be written.
    """
    if out.suffix != ".html":
        raise ConfigError(f"--out {out}: the curves are written as a page; name a file that ends in .html")
    head, lines = rows(runs)
    names = list(dict.fromkeys(name for run in runs for name in run.curves))
    legend = figures.legend([run.name for run in runs])
    shown = []
    for name in names:
        series = [figures.Series(run.name, run.curves.get(name, [])) for run in runs]
        picture = figures.curves(series, EPOCH, percent="accuracy" in name)
        shown.append(page.figure(f"compare-{name}", name.replace("_", " ").capitalize(), picture))
    body = [
        f"<h1>{escape(f'{len(runs)} runs')}</h1>",
        f'<div id="runs">{page.table(head, lines)}</div>',
        page.section("Curves", legend, page.grid(shown) if shown else page.note("No run has completed an epoch.")),
    ]
    try:
        write_file(out, page.page(f"{len(runs)} runs", body))
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {cure(error)}") from error


def _read(path: Path, name: str) -> Compared:
    record = Record.read(path)
    lines = read_lines(path)
    metrics = record.metrics or (lines[-1] if lines else {})
    numbers = {key: value for key, value in metrics.items() if isinstance(value, int | float) and key != EPOCH}
    return Compared(
        name=name,
        status=status_of(path, record.status),
        metrics=numbers,
        settings=_settings(record),
        curves=curves_by_name(lines),
        samples=record.samples,
        seconds=record.timings_s.get("total"),
    )


def _settings(record: Record) -> dict[str, str]:
    """Dotted key → value as text: of the configuration, which has what was changed when the run was resumed, and of the
    environment.
    """
    settings = {key: str(value) for key, value in flatten(record.config).items()}
    settings.pop("run.name", None)
    settings["spikecore"] = record.environment["spikecore"]
    settings["torch"] = record.environment["torch"]
    settings["device"] = f"{record.environment['device']} {record.environment['device_name']}"
    return settings


def _names(directories: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ from each other."""
    paths = [path.resolve() for path in directories]
    if len(set(paths)) < len(paths):
        raise ConfigError("each run is compared once; the same directory was given twice")
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
