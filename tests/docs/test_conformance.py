"""The pages on conformance say what the code does."""

import ast
import json
import re
from pathlib import Path

import pytest

from spikecore.kinds import KINDS
from spikecore.registry import Blocking, Registry, components, use
from spikecore.registry.catalogue import known
from spikecore.testing.catalogue import page, suite_of
from spikecore.testing.proving import prove
from tests.suites.places import reports_of
from tests.tools import conformance

DOCS = Path(__file__).parents[2] / "docs"
HOW_TO = DOCS.joinpath("how-to/prove-a-plugin.md").read_text(encoding="utf-8")


def test_the_list_of_checks_is_that_of_the_suites():
    written = DOCS.joinpath("reference/conformance.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m spikecore.testing.catalogue > docs/reference/conformance.md"
    assert all(f"## {kind}\n" in written for kind in KINDS)


def test_what_a_suite_asks_for_is_there():
    rows = re.findall(r"^\| (\w+) \| `(\w+)( = .*|\(\))` \|", HOW_TO, re.MULTILINE)
    assert len(rows) == 6
    for kind, name, value in rows:
        default = getattr(suite_of(kind), name)
        if kind == "model":
            assert default == (), "by default the shapes follow from the capabilities"
        elif value.startswith(" ="):
            assert default == ast.literal_eval(value.removeprefix(" = "))
        else:
            assert callable(default)


def test_the_report_on_the_page_is_of_the_real_form():
    shown = json.loads(re.search(r"```json\n(.*?)```", HOW_TO, re.DOTALL)[1])
    real = prove("surrogate", "atan")
    assert list(shown) == list(real)
    assert list(shown["checks"][0]) == list(real["checks"][0])
    assert set(shown["counts"]) <= set(real["counts"])


SOURCES = re.findall(r"```python\n(.*?)```", HOW_TO, re.DOTALL)
SUITES = [source for source in SOURCES if "class TestMine" in source]
NEURONS = [source for source in SOURCES if "(Neuron)" in source]


def test_every_example_is_looked_at():
    assert len(SUITES) == 3
    assert len(NEURONS) == 1
    assert len(SUITES) + len(NEURONS) == len(SOURCES)


@pytest.mark.parametrize("source", SUITES)
def test_the_examples_are_sound(source):
    names = {}
    exec("from spikecore.testing.suites.neuron import NeuronSuite\n" + source, names)
    assert names["TestMine"].component == "mine"


@pytest.mark.parametrize("source", NEURONS)
def test_the_neuron_with_a_fixed_reset_conforms(source, tmp_path):
    registered = source.replace("\nclass ", '\n@spikecore.register("neuron", "shown")\nclass ')
    file = tmp_path / "shown.py"
    file.write_text(f"import spikecore\n{registered}")
    with use(Registry(blocking=Blocking())) as registry:
        registry.load_file(file)
        report = prove("neuron", "shown")
    assert report["ok"], [check["reason"] for check in report["checks"] if check["outcome"] == "failed"]


def test_every_component_of_core_has_a_result_and_none_failed():
    table = conformance.table()
    core = {(entry.kind, entry.name) for entry in components() if entry.plugin.id == "core"}
    assert core <= set(table) <= set(known())
    for result in table.values():
        assert result.failed == 0, result
        assert result.executed >= result.minimum >= 5, result


@pytest.mark.parametrize(("kind", "name"), [("surrogate", "atan"), ("surrogate", "erf"), ("encoder", "latency")])
def test_a_result_on_a_page_is_what_the_suite_gives(kind, name):
    """Of cheap ones; the closing report of `make test` compares the rest with what its suites executed."""
    report, result = prove(kind, name), conformance.table()[kind, name]
    # Long checks run in `spike test`, and in `make test` for one component of each kind and plugin.
    assert result.executed + result.long_elsewhere == report["executed"]
    assert result.executed + result.long_elsewhere + result.not_applicable == len(report["checks"])
    assert result.version == report["version"]
    assert result.api_version == report["api_version"]


def test_the_full_suites_add_rows_and_leave_those_of_make_test(tmp_path, monkeypatch):
    """The closing report of `make test` could not compare a row of what only the full ones run."""
    report, file = prove("surrogate", "atan"), tmp_path / "table.csv"
    reports = tmp_path / "reports"

    def leave(suite, **changes):
        folder = reports / suite
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "surrogate-atan.json").write_text(json.dumps({**report, **changes}))

    def written():
        conformance.write(reports, file)
        (row,) = conformance.table(file).values()
        return row.suite, row.version, row.is_full

    monkeypatch.setenv("SPIKE_FULL", "1")
    leave(reports_of("core"))
    assert written() == ("core in full", report["version"], True)
    monkeypatch.delenv("SPIKE_FULL")
    leave(reports_of("core"))
    assert written() == ("core", report["version"], False), "both ran: that of make test"
    (reports / "core/surrogate-atan.json").unlink()
    assert written() == ("core", report["version"], False), "kept"
    leave("core in full", version="9.9")
    assert written() == ("core in full", "9.9", True), "another version"


def test_a_report_that_is_not_ok_is_no_result(tmp_path):
    """A failure, or a check that was left out, keeps a table from being written; the best of several reports counts."""
    report = prove("surrogate", "atan")
    left_out = {**report, "ok": False, "executed": 3, "counts": {**report["counts"], "not_run": 16}}
    folder = tmp_path / "reports/core"
    folder.mkdir(parents=True)
    (folder / "surrogate-atan.json").write_text(json.dumps(left_out))
    with pytest.raises(SystemExit, match="surrogate:atan"):
        conformance.write(tmp_path / "reports", tmp_path / "table.csv")
    (folder / "surrogate-atan-2.json").write_text(json.dumps(report))
    conformance.write(tmp_path / "reports", tmp_path / "table.csv")
    (row,) = conformance.table(tmp_path / "table.csv").values()
    assert (row.name, row.executed, row.failed, row.suite) == ("atan", report["executed"], 0, "core")
