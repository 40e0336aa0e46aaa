"""The reference of the plugin is that of its docstrings; every neuron has its section and its drawing; examples run."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
import spikecore_neuron_zoo
from zoo_cases import NEURONS, SURROGATES

from spikecore.registry import load

DOCS = Path(__file__).parents[1] / "docs"
PLUGIN = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("zoo_docs", DOCS / "make.py")
make = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make)
PAGE = (DOCS / "neurons.md").read_text(encoding="utf-8")
MODULES = [info.name for info in pkgutil.iter_modules(spikecore_neuron_zoo.__path__)]


def test_the_page_is_that_of_the_docstrings():
    assert make.page() == PAGE, "run python plugins/neuron-zoo/docs/make.py"


@pytest.mark.parametrize("name", NEURONS)
def test_a_neuron_has_its_section_and_its_drawing(name):
    section = PAGE.split(f"\n## `{name}`\n")[1].split("\n## ")[0]
    for part in ("```text\n", "Source:", "Options:", f"(figures/{name}.svg)"):
        assert part in section, part
    file = DOCS / f"figures/{name}.svg"
    assert file.stat().st_size < 36_000
    words = {element.text for element in ElementTree.parse(file).iter() if element.tag.endswith("text")}
    assert {"step", "ramp", "noise", "x", "out"} <= words
    assert set(load("neuron", name).Config.__dataclass_fields__) <= set(re.findall(r"`(\w+)`", section))
    if not load("neuron", name).capabilities.elementwise:
        assert "Not elementwise:" in section


def test_no_drawing_is_left_over():
    assert {file.stem for file in (DOCS / "figures").iterdir()} == set(NEURONS)


@pytest.mark.parametrize("name", SURROGATES)
def test_a_surrogate_has_its_section(name):
    assert "g'(u)" in PAGE.split(f"\n### `{name}`\n")[1].split("\n### ")[0]


def test_drawing_gives_the_same_picture_twice():
    with matplotlib.rc_context(make.STYLE):
        first = make.draw("adex")
        assert make.draw("adex") == first
    ElementTree.fromstring(first)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_are_what_comes_out(module):
    outcome = doctest.testmod(importlib.import_module(f"spikecore_neuron_zoo.{module}"))
    assert outcome.failed == 0


@pytest.mark.parametrize("kind_name", [("neuron", n) for n in NEURONS] + [("surrogate", n) for n in SURROGATES])
def test_every_component_has_an_example(kind_name):
    assert "Example:" in load(*kind_name).__doc__


def test_the_readme_names_everything_and_its_example_runs():
    readme = (PLUGIN / "README.md").read_text(encoding="utf-8")
    for name in (*NEURONS, *SURROGATES):
        assert f"`{name}`" in readme, name
    for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL):
        exec(compile(block, "README", "exec"), {})


def test_public_names_are_the_registered_classes():
    targets = {load("neuron", n).__name__ for n in NEURONS} | {load("surrogate", n).__name__ for n in SURROGATES}
    assert set(spikecore_neuron_zoo.__all__) == targets
    assert all(hasattr(spikecore_neuron_zoo, name) for name in targets)
    with pytest.raises(AttributeError, match="no_such"):
        spikecore_neuron_zoo.no_such  # noqa: B018
