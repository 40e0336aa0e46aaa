"""`spike run`: train as a configuration says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from spikecore.run.experiment import Result


@click.command()
@click.argument("config", required=False, type=click.Path())
@click.option(
    "--set",
    "overrides",
    metavar="TABLE.KEY=VALUE",
    multiple=True,
    help="Change one value, also inside: neuron.surrogate.alpha=3. Repeatable.",
)
@click.option("--out", type=click.Path(), help="Run directory; must be new or empty.")
@click.option("--dry-run", is_flag=True, help="Resolve and build everything, then stop.")
@click.option("--print-config", is_flag=True, help="Print the configuration with every default filled in, then stop.")
@click.option("--resume", "run_dir", metavar="RUN_DIR", type=click.Path(), help="Go on with a run that stopped.")
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
    dry_run: bool,
    print_config: bool,
    run_dir: str | None,
    checkpoint: str,
    files: tuple[str, ...],
) -> None:
    """Train as CONFIG (TOML) says; without one, a small spiking net on handwritten digits."""
    from spikecore.registry import registry

    if run_dir is not None and (config is not None or out is not None):
        raise click.UsageError(
            "--resume goes on in the run's own directory with its own configuration; leave out "
            + (f"CONFIG ({config})" if config is not None else "--out")
        )
    if run_dir is None and checkpoint != "last":
        raise click.UsageError("--checkpoint says where --resume RUN_DIR goes on; give --resume too")
    for file in files:
        registry().load_file(file)
    if run_dir is None:
        _new(config, overrides, out, dry_run, print_config)
    else:
        _resume(run_dir, checkpoint, overrides, dry_run, print_config)


def _new(config: str | None, overrides: tuple[str, ...], out: str | None, dry_run: bool, print_config: bool) -> None:
    from spikecore.run.config import resolve

    resolved = resolve(config, overrides)
    if print_config:
        click.echo(resolved.to_toml(), nl=False)
        return
    from spikecore.run import experiment

    if dry_run:
        click.echo(f"sound: {experiment.prepare(resolved)}")
        return
    _show(experiment.run(resolved, out=out))


def _resume(run_dir: str, checkpoint: str, overrides: tuple[str, ...], dry_run: bool, print_config: bool) -> None:
    from spikecore.run import experiment

    if dry_run or print_config:
        resolved, name = experiment.inspect_resume(run_dir, checkpoint, overrides)
        click.echo(resolved.to_toml() if print_config else f"sound: would go on from {name or 'the seed'}\n", nl=False)
        return
    _show(experiment.resume(run_dir, checkpoint=checkpoint, overrides=overrides))


def _show(result: Result) -> None:
    for name, value in result.metrics.items():
        click.echo(f"{name:14s} {value:.2%}" if name.endswith("accuracy") else f"{name:14s} {value:.4f}")
    click.echo("time           " + ", ".join(f"{part} {seconds:.1f} s" for part, seconds in result.timings.items()))
    click.echo(f"run directory  {result.directory}")
