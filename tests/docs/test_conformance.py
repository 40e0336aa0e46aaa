"""The pages on conformance say what the code does."""

import ast
import json
import re
from pathlib import Path

import pytest

from spikecore.kinds import KINDS
from spikecore.registry import Blocking, Registry, use
from spikecore.testing.catalogue import page, suite_of
from spikecore.testing.proving import prove

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
