"""The closing report: every suite that ran is an item here, with its counts and its CPU time against its budget.

A suite that ran nothing fails, and so does one that is past its budget, or missing.
"""

import os
from pathlib import Path

import pytest

from tests.suites.places import FULL, RESULTS, reports_of
from tests.suites.results import read
from tests.suites.table import suites
from tests.tools import conformance

DIRECTORY = Path(os.environ.get("SPIKE_RESULTS", RESULTS))
NAMES = os.environ["SPIKE_SUITES"].split(",") if "SPIKE_SUITES" in os.environ else list(suites())


def results():
    left = [read(name, DIRECTORY) for name in NAMES]
    return [result for result in left if result is not None]


def label(result):
    counts = result.counts
    return f"{result.name}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"


@pytest.mark.parametrize("result", results(), ids=label)
def test_suite(result):
    if result.ok and result.reason:
        pytest.skip(result.reason)
    assert result.counts["failed"] == 0
    assert result.counts["passed"] > 0, result.reason or "nothing was collected"
    assert result.ok, result.reason
    assert not result.is_past_budget(), (
        f"{result.name} took {result.cpu_s:.0f} s of CPU time, its budget is {result.budget_s:.0f} s: make its tests "
        "faster, put full products behind SPIKE_FULL, or raise the budget in tests/suites/table.py and say why"
    )


CLAIMED = [result for result in conformance.table().values() if result.suite in {*NAMES, *map(reports_of, NAMES)}]


@pytest.mark.skipif(not CLAIMED, reason="none of these suites has components")
def test_components_executed_what_their_pages_claim():
    """Of the suites that passed; what one that failed left out is its own failure."""
    passed = [result.name for result in results() if result.ok and not result.reason]
    ran = conformance.best(
        report for name in passed for report in conformance.read_reports(reports_of(name), DIRECTORY / "conformance")
    )
    less = []
    for claim in CLAIMED:
        result = ran.get(claim.key)
        if claim.suite.removesuffix(FULL) not in passed:
            continue
        # Which component of a kind the long checks run for depends on the order of the tests.
        if result is None or result.failed or result.executed + result.long_elsewhere < claim.executed:
            less.append(f"{claim.kind}:{claim.name}: {claim.executed} checks claimed, {result} ran")
    assert not less, "make conformance renews docs/reference/conformance.csv; before, see why: " + "; ".join(less)


def test_no_suite_is_missing():
    missing = set(NAMES) - {result.name for result in results()}
    assert not missing, "these suites left no result"
