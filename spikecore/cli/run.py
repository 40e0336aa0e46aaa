"""`spike run`: train as a configuration says."""

from __future__ import annotations

import click


@click.command()
@click.argument("config", required=False, type=click.Path())
@click.option("--set", "overrides", metavar="TABLE.KEY=VALUE", multiple=True, help="Change one value. Repeatable.")
@click.option("--out", type=click.Path(), help="Run directory; must be new or empty.")
@click.option("--dry-run", is_flag=True, help="Resolve and build everything, then stop.")
@click.option("--print-config", is_flag=True, help="Print the configuration with every default filled in, then stop.")
@click.option(
    "--load", "files", metavar="FILE.py", multiple=True, help="Run a file of @register components. Repeatable."
)
def command(
    config: str | None,
    overrides: tuple[str, ...],
    out: str | None,
    dry_run: bool,
    print_config: bool,
    files: tuple[str, ...],
) -> None:
    """Train as CONFIG (TOML) says; without one, a small spiking net on handwritten digits."""
    from spikecore.registry import registry
    from spikecore.run.config import resolve

    for file in files:
        registry().load_file(file)
    resolved = resolve(config, overrides)
    if print_config:
        click.echo(resolved.to_toml(), nl=False)
        return
    from spikecore.run import experiment

    if dry_run:
        task, _, context = experiment.prepare(resolved)
        count = sum(parameter.numel() for parameter in task.model.parameters())
        click.echo(f"sound: {count} parameters on {context.device}, {len(task.train)} training samples")
        return
    result = experiment.run(resolved, out=out)
    for name, value in result.metrics.items():
        click.echo(f"{name:14s} {value:.2%}" if name.endswith("accuracy") else f"{name:14s} {value:.4f}")
    click.echo("time           " + ", ".join(f"{part} {seconds:.1f} s" for part, seconds in result.timings.items()))
    click.echo(f"run directory  {result.directory}")
