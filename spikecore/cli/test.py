"""`spike test KIND:NAME`, `spike test --all [PLUGIN]`: check that components keep the contract of their kind."""

from __future__ import annotations

import sys
from typing import Any

import click

from spikecore.cli import completing
from spikecore.cli.naming import kind_and_name
from spikecore.cli.output import say

CONFORMS, FAILED, NOT_PROVED = 0, 1, 2
"""Exit status."""


@click.command()
@click.argument("words", nargs=-1, metavar="[KIND:NAME | PLUGIN]", shell_complete=completing.qualified_names)
@click.option("--all", "is_all", is_flag=True, help="Every installed component, or every one of PLUGIN.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="An option of the component. Repeatable.")
@click.option("--json", "json_file", type=click.Path(), help="Write the report to this file.")
@click.option(
    "--load", "files", metavar="FILE.py", multiple=True, help="Run a file of @register components. Repeatable."
)
def command(
    words: tuple[str, ...], is_all: bool, settings: tuple[str, ...], json_file: str | None, files: tuple[str, ...]
) -> None:
    """Run the conformance suite of KIND on the component KIND:NAME, or with --all on many.

    Exit status: 0 it conforms; 1 a check failed, or too few were executed; 2 nothing was proved: there is no such
    component, or it cannot be used here (a backend: none of its devices is here). With --all: 1 if some component
    failed, else 2 if some could not be proved, else 0.
    """
    from spikecore.registry import registry

    if is_all and (settings or len(words) > 1):
        raise click.UsageError("--all takes one PLUGIN at most, and no --set")
    _check_place(json_file)
    for file in files:
        registry().load_file(file)
    if is_all:
        sys.exit(_prove_all(words[0] if words else None, json_file))
    from spikecore.testing.proving import prove
    from spikecore.testing.report import summary

    kind, name = kind_and_name(words)
    from spikecore.run.overrides import parse_settings

    report = prove(kind, name, parse_settings(settings), quiet=False)
    say(summary(report))
    _write(json_file, report)
    sys.exit(CONFORMS if report["ok"] else FAILED)


def _prove_all(plugin: str | None, json_file: str | None) -> int:
    from spikecore.testing.proving import Proof, prove_all
    from spikecore.testing.report import SCHEMA, summary

    proofs: list[Proof] = []
    for proof in prove_all(plugin):
        proofs.append(proof)
        if proof.report is None:
            say(f"{proof.kind}:{proof.name}: not proved: {proof.obstacle}")
            continue
        say(summary(proof.report))
        for check in proof.report["checks"]:
            if check["outcome"] in ("failed", "unexpected_pass"):
                say(f"    {check['name']}: {check['reason']}")
    reports = [proof.report for proof in proofs if proof.report is not None]
    num_failed = sum(not report["ok"] for report in reports)
    num_left = len(proofs) - len(reports)
    say(f"{len(reports) - num_failed} components conform, {num_failed} fail, {num_left} were not proved")
    left = [{"kind": p.kind, "name": p.name, "reason": p.obstacle} for p in proofs if p.report is None]
    _write(json_file, {"schema": SCHEMA, "reports": reports, "not_proved": left})
    if num_failed:
        return FAILED
    return NOT_PROVED if num_left else CONFORMS


def _check_place(json_file: str | None) -> None:
    """Before the suites run, which may take long."""
    from pathlib import Path

    if json_file == "-":
        raise click.UsageError("--json -: expected a file, since the checks print there themselves")
    if json_file is not None and not Path(json_file).absolute().parent.is_dir():
        raise click.UsageError(f"--json {json_file}: cannot be written: its directory does not exist")


def _write(json_file: str | None, content: dict[str, Any]) -> None:
    import json
    from pathlib import Path

    if json_file is None:
        return
    try:
        Path(json_file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"--json {json_file}: cannot be written: {error}") from error
