"""What a suite found on one component, as plain data.

    {"schema": 1, "kind": ..., "name": ..., "distribution": ..., "version": ..., "api_version": ...,
     "options": {name: text}, "ok": ..., "executed": ..., "minimum": ..., "counts": {outcome: number},
     "checks": [{"name": ..., "outcome": ..., "reason": ..., "seconds": ...}, ...]}

Outcomes: `passed`, `failed`, `skipped`, `expected_failure`, `unexpected_pass`, `not_run`. Only a report that is `ok`
shows that the component conforms: nothing failed, nothing was left out, and at least `minimum` checks were executed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spikecore.registry import registry

if TYPE_CHECKING:
    from spikecore.testing.suite import Suite

SCHEMA = 1
OUTCOMES = ("passed", "failed", "skipped", "expected_failure", "unexpected_pass", "not_run")
GOOD = ("passed", "skipped", "expected_failure")


def report(suite: type[Suite]) -> dict[str, Any]:
    """The report of a suite that has run."""
    entry = registry().find(suite.kind, suite.component)
    checks = [_line(suite, name) for name in suite.checks()]
    counts = {outcome: sum(line["outcome"] == outcome for line in checks) for outcome in OUTCOMES}
    executed = len(checks) - counts["skipped"] - counts["not_run"]
    return {
        "schema": SCHEMA,
        "kind": suite.kind,
        "name": entry.name,
        "distribution": entry.plugin.distribution,
        "version": entry.plugin.version,
        "api_version": registry().load(suite.kind, suite.component).api_version,
        "options": {name: repr(value) for name, value in suite.options.items()},
        "ok": executed >= suite.minimum and all(line["outcome"] in GOOD for line in checks),
        "executed": executed,
        "minimum": suite.minimum,
        "counts": counts,
        "checks": checks,
    }


def summary(report: dict[str, Any]) -> str:
    """One line: `neuron:lif (spikecore 0.1.0): 30 passed, 2 skipped; 30 executed, at least 14 needed`."""
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report["counts"].items() if count)
    source = f"{report['distribution']} {report['version'][:12]}".strip()
    return (
        f"{report['kind']}:{report['name']} ({source}): {counts}; "
        f"{report['executed']} executed, at least {report['minimum']} needed"
    )


def _line(suite: type[Suite], name: str) -> dict[str, Any]:
    outcome = suite.outcomes.get(name)
    if outcome is None:
        return {"name": name, "outcome": "not_run", "reason": "it was not selected", "seconds": 0.0}
    what, reason = outcome.outcome, outcome.reason
    if name in suite.expected_failures and what != "skipped":
        what = "expected_failure" if what == "failed" else "unexpected_pass"
        reason = suite.expected_failures[name]
    return {"name": name, "outcome": what, "reason": reason, "seconds": round(outcome.seconds, 4)}
