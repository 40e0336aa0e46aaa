"""`spike run`: train as a configuration says."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from spikecore.cli import completing
from spikecore.cli.importing import named_while_imported
from spikecore.cli.output import say
from spikecore.foreign import printable_lines

if TYPE_CHECKING:
    from spikecore.run.clock import Clock
    from spikecore.run.experiment import Result
    from spikecore.run.processes import Group


@click.command()
@click.argument("config", required=False, type=click.Path())
@click.option(
    "--set",
    "overrides",
    metavar="TABLE.KEY=VALUE",
    multiple=True,
    shell_complete=completing.settings,
    help="Change one value, also inside: neuron.surrogate.alpha=3. Repeatable.",
)
@click.option("--out", type=click.Path(), help="Run directory; must be new or empty.")
@click.option("--seeds", metavar="0,1,2", help="Train once with each seed, and print mean ± deviation.")
@click.option("--dry-run", is_flag=True, help="Resolve and build everything, then stop; nothing is downloaded.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar and no line per epoch; warnings stay.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the outcome as JSON: directory, metrics, timings; of each seed with --seeds.",
)
@click.option("--print-config", is_flag=True, help="Print the configuration with every default filled in, then stop.")
@click.option(
    "--resume",
    "run_dir",
    metavar="RUN_DIR",
    type=click.Path(),
    shell_complete=completing.run_directories,
    help="Go on with a run that stopped.",
)
@click.option(
    "--checkpoint", default="last", show_default=True, help="With --resume: `last`, `best` or a checkpoint's name."
)
@click.option(
    "--load", "files", metavar="FILE.py", multiple=True, help="Run a file of @register components. Repeatable."
)
def command(
    config: str | None,
    overrides: tuple[str, ...],
    out: str | None,
    seeds: str | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    print_config: bool,
    run_dir: str | None,
    checkpoint: str,
    files: tuple[str, ...],
) -> None:
    """Train as CONFIG (TOML) says; without one, a small spiking net on handwritten digits."""
    from contextlib import suppress

    from spikecore.errors import StopRun
    from spikecore.registry import registry
    from spikecore.registry.loading import announcing
    from spikecore.run.clock import Clock
    from spikecore.run.joining import joined

    if run_dir is not None and (config is not None or out is not None):
        raise click.UsageError(
            "--resume goes on in the run's own directory with its own configuration; leave out "
            + (f"CONFIG ({config})" if config is not None else "--out")
        )
    if run_dir is None and checkpoint != "last":
        raise click.UsageError("--checkpoint says where --resume RUN_DIR goes on; give --resume too")
    if as_json and (dry_run or print_config):
        raise click.UsageError("--json prints the outcome of a run, and there is none with --dry-run or --print-config")
    if seeds is not None:
        if run_dir is not None or dry_run or print_config:
            raise click.UsageError("--seeds trains new runs; leave out --resume, --dry-run and --print-config")
        _several(seeds, config, overrides, out, quiet, as_json, files)
        return
    clock = Clock()
    with (
        announcing(named_while_imported),
        joined(clock) as processes,
        suppress(StopRun),
    ):  # the run has told why, and what resumes it
        with clock.timed("import"):
            processes.together(lambda: [registry().load_file(file) for file in files])
        if run_dir is None:
            result = _new(processes, config, overrides, out, dry_run, print_config, quiet, clock)
        else:
            result = _resume(processes, run_dir, checkpoint, overrides, dry_run, print_config, quiet, clock)
        if result is not None and processes.is_first:
            _show(result, as_json)


def _several(
    seeds: str,
    config: str | None,
    overrides: tuple[str, ...],
    out: str | None,
    quiet: bool,
    as_json: bool,
    files: tuple[str, ...],
) -> None:
    """A run for each seed: in `OUT/seed-N`, or in directories of their own; then all of them beside each other."""
    from pathlib import Path

    from spikecore.registry import registry
    from spikecore.run import compare, experiment
    from spikecore.run.clock import Clock
    from spikecore.run.config import resolve
    from spikecore.run.console import Console
    from spikecore.run.joining import joined
    from spikecore.terminal import width

    numbers = _numbers(seeds)
    clock = Clock()
    with joined(clock) as processes:
        processes.together(lambda: [registry().load_file(file) for file in files])
        # Before the first one is trained: a configuration or a directory that cannot be used.
        configs = processes.together(lambda: [resolve(config, [*overrides, f"run.seed={seed}"]) for seed in numbers])
        results: list[Result] = []
        for seed, resolved in zip(numbers, configs, strict=True):
            place = None if out is None else str(Path(out) / f"seed-{seed}")
            output = experiment.Output(Clock(), Console(is_quiet=quiet))
            results.append(experiment.run(resolved, out=place, output=output))
        if not processes.is_first:
            return
        if as_json:
            say(json.dumps({"schema": 1, "runs": [_plain(result) for result in results]}))
        else:
            head, lines = compare.rows(compare.read([result.directory for result in results]))
            say(compare.table_text(head, lines, width(sys.stdout)))


def _numbers(seeds: str) -> list[int]:
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise click.UsageError(f"--seeds {seeds}: expected different whole numbers, as in 0,1,2")
    return numbers


def _new(
    processes: Group,
    config: str | None,
    overrides: tuple[str, ...],
    out: str | None,
    dry_run: bool,
    print_config: bool,
    quiet: bool,
    clock: Clock,
) -> Result | None:
    with clock.timed("import"):  # checking the options imports the components, and torch with them
        from spikecore.run.config import resolve

        resolved = processes.together(lambda: resolve(config, overrides))
    if (print_config or dry_run) and processes.is_first:  # a run tells it when it begins, and notes it
        from spikecore.run.console import Console

        for line in resolved.dropped:
            Console().warn(line)
    if print_config:
        _tell(processes, resolved.to_toml())
        return None
    with clock.timed("import"):
        from spikecore.run import dry_run as dry
        from spikecore.run import experiment
        from spikecore.run.console import Console

    if dry_run:
        _tell(processes, printable_lines(processes.first(lambda: str(dry.inspect(resolved)))) + "\n")
        return None
    return experiment.run(resolved, out=out, output=experiment.Output(clock, Console(is_quiet=quiet)))


def _resume(
    processes: Group,
    run_dir: str,
    checkpoint: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    print_config: bool,
    quiet: bool,
    clock: Clock,
) -> Result | None:
    with clock.timed("import"):
        from pathlib import Path

        from spikecore.run import dry_run as dry
        from spikecore.run import experiment
        from spikecore.run.console import Console
        from spikecore.run.restore import SavedRun

    if print_config:
        _tell(processes, processes.first(lambda: SavedRun.open(Path(run_dir)).resolve(overrides).to_toml()))
        return None
    if dry_run:
        _tell(
            processes,
            printable_lines(processes.first(lambda: str(dry.inspect_resume(run_dir, checkpoint, overrides)))) + "\n",
        )
        return None
    output = experiment.Output(clock, Console(is_quiet=quiet))
    return experiment.resume(run_dir, checkpoint=checkpoint, overrides=overrides, output=output)


def _tell(processes: Group, text: str) -> None:
    if processes.is_first:
        say(text, ends_line=False)


def _plain(result: Result) -> dict[str, Any]:
    """The outcome of a run as plain JSON data; a metric that is not finite is None."""
    from spikecore.run.log import finite

    metrics = {name: finite(value) for name, value in result.metrics.items()}
    return {"directory": str(result.directory), "metrics": metrics, "timings": dict(result.timings)}


def _show(result: Result, as_json: bool) -> None:
    from spikecore.run.text import aligned_value_text
    from spikecore.terminal import listed, width

    if as_json:
        say(json.dumps({"schema": 1, **_plain(result)}))
        return
    for name, value in result.metrics.items():
        say(f"{name:14s} {aligned_value_text(name, value)}")
    times = [f"{part} {seconds:.1f} s" for part, seconds in result.timings.items()]
    say(listed("time           ", times, width(sys.stdout)))
    say(f"run directory  {result.directory}")
