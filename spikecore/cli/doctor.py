"""`spike doctor`: what works here, what does not, and what to do about it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from spikecore.cli import completing
from spikecore.cli.output import say
from spikecore.foreign import printable, printable_lines
from spikecore.registry import registry
from spikecore.terminal import listed, width, wrapped

if TYPE_CHECKING:
    from spikecore.cli.examine import Finding

SIGNS = {"broken": "BROKEN", "warning": "warning", "missing": "missing", "ok": "ok     "}
"""The status of a finding → what its line begins with; the worst comes first."""


@click.command()
@click.argument("plugins", nargs=-1, metavar="[PLUGIN]...", shell_complete=completing.plugins)
@click.option("--verbose", is_flag=True, help="Also list what works.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=120.0, help="Seconds per plugin.")
def command(plugins: tuple[str, ...], verbose: bool, as_json: bool, timeout: float) -> None:
    """Look at the environment and load every plugin (or those named), each in a process of its own.

    Problems come first, the worst at the top; what works is counted, and listed with --verbose.
    Exit status 1 when something is broken; what is missing or blocked is no fault.
    """
    from spikecore.cli import examine

    known = {name for plugin in registry().plugins() for name in (plugin.id, plugin.distribution)}
    if unknown := [name for name in plugins if name not in known]:
        raise click.UsageError(f"no plugin {unknown[0]!r} is installed (plugins: {', '.join(sorted(known))})")
    environment = examine.environment()
    findings = [] if plugins else list(examine.of_core())
    for plugin in registry().plugins():
        if not plugins or plugin.id in plugins or plugin.distribution in plugins:
            findings += examine.of_plugin(plugin, timeout)
    broken = sum(finding.status == "broken" for finding in findings)
    if as_json:
        shown: dict[str, Any] = {"schema": 1, "environment": environment, "broken": broken}
        say(json.dumps({**shown, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        columns = width(sys.stdout)
        for line in _lines(findings, verbose):
            say(wrapped(line, columns))
        for name, value in environment.items():
            say(listed(f"{name:12s} ", printable(value, 1000).split(", "), columns))
        say(f"\n{_total(findings)}")
    sys.exit(1 if broken else 0)


def _lines(findings: Sequence[Finding], with_working: bool) -> Iterator[str]:
    """A line for each finding, the worst first, and an empty one behind them."""
    order = list(SIGNS)
    shown = [finding for finding in findings if with_working or finding.status != "ok"]
    for finding in sorted(shown, key=lambda finding: order.index(finding.status)):
        yield _line(finding)
    if shown:
        yield ""


def _total(findings: Sequence[Finding]) -> str:
    """`nothing is broken; 1 missing; 178 work (--verbose lists them)`."""
    counts = Counter(finding.status for finding in findings)
    broken = f"{counts['broken']} broken" if counts["broken"] else "nothing is broken"
    names = {"warning": "warning" if counts["warning"] == 1 else "warnings", "missing": "missing"}
    lesser = [f"{counts[status]} {name}" for status, name in names.items() if counts[status]]
    return "; ".join([broken, *lesser, f"{counts['ok']} work (--verbose lists them)"])


def _line(finding: Finding) -> str:
    time = f" ({finding.seconds:.2f} s)" if finding.seconds is not None else ""
    detail = f": {finding.detail}" if finding.detail else ""
    hint = f"\n         → {finding.hint}" if finding.hint else ""
    line = f"{SIGNS[finding.status]} {finding.plugin or 'here'}: {finding.what}{time}{detail}"
    return f"{printable(line, 1000)}{printable_lines(hint, 1000)}"
