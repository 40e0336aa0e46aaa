"""`spike deploy`: exports a trained net as an artefact for a device or an exchange format, and compares the two."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spikecore.cli import completing
from spikecore.cli.output import say
from spikecore.errors import ConfigError
from spikecore.terminal import width, wrapped

if TYPE_CHECKING:
    from torch import nn

    from spikecore.interfaces.deployer import Deployer, OperatorRecord
    from spikecore.run.deployment import Deployment
    from spikecore.run.samples import Samples

VERIFIED = 16
"""How many samples are compared by default, if the deployer simulates."""


@click.command()
@click.argument("name", shell_complete=completing.deployers)
@click.argument("run_dir", type=click.Path(path_type=Path), shell_complete=completing.run_directories)
@click.option("--out", type=click.Path(path_type=Path), help="Directory to write; must be new or empty.")
@click.option(
    "--verify",
    metavar="N",
    type=click.IntRange(0),
    help=f"Compare with the net on N samples of the test split; 0: do not. [default: {VERIFIED}, where NAME simulates]",
)
@click.option("--check", "only_check", is_flag=True, help="Only list what becomes of every operator; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --check: as JSON.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="An option of NAME. Repeatable.")
@click.option("--checkpoint", default="last", show_default=True, help="`last`, `best` or a checkpoint's name.")
@click.option("--net", "part", metavar="NAME", help="Of a run that trains several nets: which one.")
@click.option(
    "--num-steps", type=click.IntRange(1), help="T of the example input; makes one up, so that no data are needed."
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="B of the example input.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=1e-5,
    show_default=True,
    help="Outputs that are not spikes agree up to this difference.",
)
@click.option(
    "--load", "files", metavar="FILE.py", multiple=True, help="Run a file of @register components. Repeatable."
)
def command(
    name: str,
    run_dir: Path,
    out: Path | None,
    verify: int | None,
    only_check: bool,
    as_json: bool,
    settings: tuple[str, ...],
    checkpoint: str,
    part: str | None,
    num_steps: int | None,
    batch: int,
    tolerance: float,
    files: tuple[str, ...],
) -> None:
    """Deploy the net in RUN_DIR, of a run or of spike convert, with the deployer NAME.

    Writes into --out: the artefact, deploy.json (what became of every operator, options, versions, checksums), and
    fidelity.html; where the artefact can be simulated here, fidelity.json too: the agreement with the net, layer by
    layer and step by step.

    \b
    spike deploy NAME RUN_DIR --check            what becomes of every operator
    spike deploy NAME RUN_DIR --out DIR --verify 100

    Exit status: 0 done; 1 it was written, but lies farther from the net than NAME declares; 2 an operator is refused,
    or the run, the deployer or an option cannot be used.
    """
    from spikecore.errors import ConversionError, NetTraceError
    from spikecore.registry import create
    from spikecore.run.converted import load_files
    from spikecore.run.overrides import parse_settings

    _check_usage(out, only_check, as_json)
    load_files(files, run_dir)
    deployer = create("deployer", name, **parse_settings(settings))
    count = _count(name, deployer, verify) if not only_check else 0
    net = _net(run_dir, checkpoint, part)
    samples = _samples(run_dir, checkpoint, max(count, batch)) if count or num_steps is None else None
    if num_steps is not None:
        example = _random_input(run_dir, part, num_steps, batch)
    else:
        assert samples is not None
        if samples.x.shape[1] < batch:
            raise ConfigError(
                f"--batch {batch}: there are only {samples.x.shape[1]} samples ({samples.source}) for an input of this "
                "many; choose a smaller --batch, or make an input up with --num-steps T"
            )
        example = samples.x[:, :batch]
    try:
        records = deployer.check(net, example)
    except (ConversionError, NetTraceError) as error:
        raise ConfigError(f"deployer {name!r} cannot look into this net: {error}") from error
    refused = [record for record in records if record.outcome == "refused"]
    if only_check:
        say(_json(records) if as_json else wrapped("\n".join(_table(records)), width(sys.stdout)))
        sys.exit(2 if refused else 0)
    if refused:
        table = "\n".join(_table(records))
        raise ConfigError(f"deployer {name!r} refuses {len(refused)} of {len(records)} operators:\n{table}")
    assert out is not None

    from spikecore.run.deployment import deploy

    deployment = deploy(
        deployer,
        name,
        net,
        example,
        out,
        samples if count else None,
        tolerance,
        is_asked_for=verify is not None,
        about={"run": str(run_dir), "checkpoint": checkpoint, "net": part},
    )
    _show(deployment)
    sys.exit(1 if deployment.problems else 0)


def _check_usage(out: Path | None, only_check: bool, as_json: bool) -> None:
    from spikecore.cli.out import require_empty

    if only_check and out is not None:
        raise click.UsageError("--check writes nothing; leave out --out, or --check")
    if not only_check and out is None:
        raise click.UsageError("--out DIR says where to write; or --check to see what becomes of the operators")
    if as_json and not only_check:
        raise click.UsageError("--json goes with --check; without it, deploy.json and fidelity.json are written")
    if out is not None:
        require_empty(out)


def _count(name: str, deployer: Deployer, verify: int | None) -> int:
    """How many samples to compare."""
    if verify and not deployer.capabilities.simulates:
        raise click.UsageError(
            f"--verify {verify}: deployer {name!r} does not simulate its artefacts, so they cannot be compared here; "
            "leave out --verify"
        )
    if verify is None:
        return VERIFIED if deployer.capabilities.simulates else 0
    return verify


def _net(run_dir: Path, checkpoint: str, part: str | None) -> nn.Module:
    """The net of the run on the reference backend, which is what an artefact is compared with."""
    from torch import nn

    from spikecore import load

    net: nn.Module = load(run_dir, checkpoint, backend="torch")
    if isinstance(net, nn.ModuleDict):
        if part is None or part not in net:
            given = "--net is missing" if part is None else f"--net {part}"
            raise click.UsageError(f"{given}: this run has the nets {', '.join(net)}")
        return net[part]
    if part is not None:
        raise click.UsageError(f"--net {part}: this run has one net only; leave out --net")
    return net


def _samples(run_dir: Path, checkpoint: str, count: int) -> Samples:
    """Inputs from the run's data."""
    from spikecore.errors import SpikeError
    from spikecore.run.samples import samples_of

    try:
        return samples_of(run_dir, count, checkpoint)
    except (SpikeError, OSError) as error:
        raise ConfigError(
            f"{run_dir}: the data of this run cannot be read: {error}\n"
            "To deploy without them: --verify 0 --num-steps T, for an input of T steps"
        ) from error


def _random_input(run_dir: Path, part: str | None, num_steps: int, batch: int) -> Any:
    """An input of the recorded shape: spikes with probability 1/2."""
    import torch

    from spikecore.run.converted import input_shape, is_converted

    shape = input_shape(run_dir) if is_converted(run_dir) else _recorded_shape(run_dir, part)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (num_steps, batch, *shape), generator=generator).float()


def _recorded_shape(run_dir: Path, part: str | None) -> tuple[int, ...]:
    from spikecore.run.record import Record

    nets = Record.read(run_dir).nets
    if (part or "") not in nets:
        raise ConfigError(f"{run_dir}: its record does not tell the shape of inputs; leave out --num-steps")
    return nets[part or ""].input_shape


def _table(records: Sequence[OperatorRecord]) -> list[str]:
    """A row per operator; reason and cure below it, so that it fits 80 columns."""
    rows = [("name", "operator", "outcome", "on the target")]
    rows += [(record.name, record.operator, record.outcome, record.target) for record in records]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for row, record in zip(rows, [None, *records], strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        lines.append("  ".join([*cells, row[3]]).rstrip())
        if record is not None:
            lines += [f"    {text}" for text in (record.reason, record.cure) if text]
    return lines


def _json(records: Sequence[OperatorRecord]) -> str:
    import json

    from spikecore.interfaces.deployer import records_to_json

    return json.dumps({"schema": 1, "operators": records_to_json(records)}, indent=2)


def _show(deployment: Deployment) -> None:
    outcomes: dict[str, int] = {}
    for record in deployment.artefact.mapping:
        outcomes[record.outcome] = outcomes.get(record.outcome, 0) + 1
    say(f"artefact    {deployment.artefact.path}")
    say(f"operators   {', '.join(f'{count} {outcome}' for outcome, count in outcomes.items())}")
    for note in deployment.notes:
        say(wrapped(f"note        {note}", width(sys.stdout)))
    if deployment.fidelity is not None:
        say(f"compared    {deployment.source}")
        say(wrapped(str(deployment.fidelity), width(sys.stdout)))
    say(f"page        {deployment.directory / 'fidelity.html'}")
    for problem in deployment.problems:
        say(f"spike: {problem}", is_error=True)
