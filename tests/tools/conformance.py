"""`make conformance`: writes docs/reference/conformance.csv, what the conformance suite of each component executed.

The rows come from the reports that the suites of `make test` leave in `.build/results/conformance/SUITE`. The pages of
the components show them. After every run, the closing report compares what was executed with this table.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from spikecore.registry.catalogue import known
from tests.suites.places import CONFORMANCE, ROOT

BY_HAND = "spike test"
"""The suite of a row that `spike test` wrote, not a suite of `make test`."""
LONG = "a long check"
"""What the reason of such a skipped check begins with."""
FILE = ROOT / "docs/reference/conformance.csv"


@dataclass(frozen=True)
class Result:
    """What a suite executed on one component.

    Args:
        kind, name: of the component.
        distribution, version: whose it is.
        api_version: of the contract that was checked.
        suite: of `make test`, in which it ran; or `BY_HAND`.
        executed: checks that ran.
        failed: of these; a failure that the plugin declares as expected is none.
        long_elsewhere: checks that take long, and ran for another component of this kind and plugin.
        not_applicable: checks that its capabilities, or this machine, rule out.
        minimum: of executed checks that the kind asks for.
        options: with which it was made, as JSON; what is not named has its default.
    """

    kind: str
    name: str
    distribution: str
    version: str
    api_version: int
    suite: str
    executed: int
    failed: int
    long_elsewhere: int
    not_applicable: int
    minimum: int
    options: str

    @property
    def key(self) -> tuple[str, str]:
        """Kind and name."""
        return self.kind, self.name


def read_reports(suite: str, directory: Path = CONFORMANCE) -> Iterator[Result]:
    """The results of the reports that a suite left; a report that is not `ok` counts as a failure at least."""
    for path in sorted((directory / suite).glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        counts = report["counts"]
        failed = counts["failed"] + counts["unexpected_pass"]
        left_out = [line for line in report["checks"] if line["outcome"] == "skipped"]
        num_long = sum(line["reason"].startswith(LONG) for line in left_out)
        yield Result(
            kind=report["kind"],
            name=report["name"],
            distribution=report["distribution"],
            version=report["version"],
            api_version=report["api_version"],
            suite=suite,
            executed=report["executed"],
            failed=failed if report["ok"] else max(failed, 1),
            long_elsewhere=num_long,
            not_applicable=len(left_out) - num_long,
            minimum=report["minimum"],
            options=json.dumps(report["options"], sort_keys=True),
        )


def best(results: Iterable[Result]) -> dict[tuple[str, str], Result]:
    """Of each component the result with most checks: the long ones run once for each kind and plugin."""
    chosen: dict[tuple[str, str], Result] = {}
    for result in results:
        other = chosen.get(result.key)
        if other is None or _rank(result) < _rank(other):
            chosen[result.key] = result
    return chosen


def _rank(result: Result) -> tuple[int, int, int]:
    """The smaller, the better: nothing failed, more checks, fewer options."""
    return result.failed, -result.executed, len(result.options)


def table(file: Path = FILE) -> dict[tuple[str, str], Result]:
    """The committed results by kind and name."""
    numbers = {field.name for field in fields(Result) if field.type == "int"}
    results = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            values: dict[str, Any] = dict(row)
            for name in numbers:
                values[name] = int(row[name])
            result = Result(**values)
            results[result.key] = result
    return results


def unproved(plugin: str) -> dict[tuple[str, str], str]:
    """The components of a plugin whose checks `make test` does not run, with the reason."""
    file = ROOT / "plugins" / plugin / "tests/unproved.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    reasons = {}
    for line in lines:
        component, _, reason = line.partition("  ")
        kind, _, name = component.partition(":")
        reasons[kind, name] = reason
    return reasons


def write(directory: Path = CONFORMANCE, file: Path = FILE) -> None:
    """Renew the rows of the suites that left reports; the rows of others stay.

    Raises:
        SystemExit: a suite failed, or there are no reports.
    """
    suites = sorted(path.name for path in directory.glob("*"))
    fresh = best(result for suite in suites for result in read_reports(suite, directory))
    # Tests of the kit make components of their own.
    fresh = {key: result for key, result in fresh.items() if key in known()}
    if not fresh:
        raise SystemExit(f"no reports in {directory}: run `make test` first")
    wrong = [f"{result.kind}:{result.name}" for result in fresh.values() if result.failed]
    if wrong:
        raise SystemExit(f"these do not conform, so nothing was written: {', '.join(wrong)}")
    # The rows of suites that left no report stay, as long as their components exist.
    before = table(file) if file.is_file() else {}
    merged = {key: result for key, result in before.items() if key in known()} | fresh
    rows = [merged[key] for key in sorted(merged)]
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, [field.name for field in fields(Result)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:2]))
