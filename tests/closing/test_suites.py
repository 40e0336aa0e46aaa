"""The closing report: every suite that ran is an item here, with its counts; one that ran nothing fails."""

import json
import os
from pathlib import Path

import pytest

from tests import suites

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(os.environ.get("SPIKE_RESULTS", ROOT / ".build/results"))
EXPECTED = ["core", *(f"plugin-{path.parent.name}" for path in sorted(ROOT.glob("plugins/*/pyproject.toml")))]

PARTS = [f"check-{name}" for name in suites.PARTS]


def results():
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    # Parts of `make check` count when this is the end of a run that made them.
    return [result for result in found if os.environ.get("SPIKE_WITH_CHECK") or not result["name"].startswith("check-")]


def label(result):
    counts = result["counts"]
    return f"{result['name']}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"


@pytest.mark.parametrize("result", results(), ids=label)
def test_suite(result):
    counts = result["counts"]
    if result["ok"] and result["reason"]:
        pytest.skip(result["reason"])
    assert counts["failed"] == 0
    assert counts["passed"] > 0, "nothing was collected"
    assert result["ok"], result["reason"]


def test_no_suite_is_missing():
    wanted = EXPECTED + (PARTS if os.environ.get("SPIKE_WITH_CHECK") else [])
    assert set(wanted) <= {result["name"] for result in results()}
