"""Runs one suite in this process's environment and counts what its pytest reports."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from tests.suites.environments import remove_left_overs
from tests.suites.places import CONFORMANCE, RESULTS, ROOT, reports_of
from tests.suites.results import COUNTS, Result
from tests.suites.table import Suite

TEST_LIMIT_S = 400
"""The longest that a test may wait: it fails then, and the suite goes on. The slowest takes a minute or two.

Only a test that waits outside Python cannot be ended so; then pytest's `faulthandler_timeout` ends its suite."""


def run(suite: Suite, arguments: Sequence[str] = ()) -> Result:
    """Run a suite; what fails while its environment is made is a failed suite.

    Args:
        suite: which.
        arguments: further arguments of its pytest.
    """
    result = Result(suite.name, False)
    try:
        python = suite.prepare()
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"{suite.name}: {error}", file=sys.stderr)
        result.reason = str(error)
        return result
    if python is None:
        result.ok, result.reason = True, "its Python is not on this machine"
        return result
    if not suite.pytest_arguments:
        result.ok, result.counts["passed"] = True, 1
        return result
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    result.setup_cpu_s = usage.ru_utime + usage.ru_stime
    _pytest(suite, python, arguments, result)
    return result


def _pytest(suite: Suite, python: Path, arguments: Sequence[str], result: Result) -> None:
    remove_left_overs()
    RESULTS.mkdir(parents=True, exist_ok=True)
    report = RESULTS / f"{suite.name}.xml"
    report.unlink(missing_ok=True)
    # Suites run side by side in one tree: no shared cache.
    options = ["-p", "no:cacheprovider", f"--junitxml={report}", "-o", "junit_family=xunit2"]
    options += [f"--timeout={TEST_LIMIT_S}", "--timeout-method=signal"]
    reports = CONFORMANCE / reports_of(suite.name)
    shutil.rmtree(reports, ignore_errors=True)
    if suite.action == "test":  # what the suites of components executed: see tests/tools/conformance.py
        options.append(f"--spike-report={reports}")
    command = [str(python), "-m", "pytest", *suite.pytest_arguments, *arguments, *options]
    status = subprocess.run(command, cwd=ROOT, env={**os.environ, **suite.environment}).returncode
    if report.is_file():
        result.counts = _counts(report)
        report.unlink()
    result.ok = status == 0 and result.counts["passed"] > 0
    if not result.ok:
        result.reason = f"pytest ended with status {status}"


def _counts(report: Path) -> dict[str, int]:
    counts = dict.fromkeys(COUNTS, 0)
    for case in ET.parse(report).iter("testcase"):
        outcomes = {child.tag for child in case}
        if outcomes & {"failure", "error"}:
            counts["failed"] += 1
        elif "skipped" in outcomes:
            counts["skipped"] += 1
        else:
            counts["passed"] += 1
    return counts
