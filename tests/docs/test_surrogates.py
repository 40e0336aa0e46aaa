"""The page on surrogates names every surrogate of the core, with its formula, default, source and figure."""

import importlib.util
import inspect
import re
from pathlib import Path

import matplotlib
import pytest

from spikecore.registry import components, create

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/surrogates.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
NAMES = sorted(entry.name for entry in components("surrogate") if entry.plugin.id == "core")
DRAWN = ROOT / "docs/figures/surrogates"


def plain(text):
    return " ".join(text.split())


def test_every_surrogate_has_a_section_and_every_section_a_surrogate():
    assert len(NAMES) >= 8
    assert sorted(SECTIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_section_says_what_the_class_says(name):
    surrogate, section = create("surrogate", name), SECTIONS[name]
    kind, doc = type(surrogate), inspect.getdoc(type(surrogate))
    assert f"`nn.{kind.__name__}(alpha={surrogate.config.alpha})`" in section
    formulas = [part.strip(" .") for part in doc.split("\n")[0].split(";") if part.strip().startswith("g")]
    lines = [line.strip() for line in section.split("\n") if line.startswith("    ")]
    assert sorted(formulas) == sorted(lines)
    assert len(formulas) == 1 + surrogate.capabilities.primitive
    assert plain(doc[doc.index("Source:") :]) in plain(section)
    assert f"![{name}](../figures/surrogates/{name}.svg)" in section


def test_the_figures_are_those_that_the_script_draws(tmp_path):
    spec = importlib.util.spec_from_file_location("draw_surrogates", ROOT / "docs/figures/surrogates.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    drawn = script.draw(tmp_path)
    assert sorted(path.name for path in drawn) == sorted(path.name for path in DRAWN.iterdir())
    pinned = re.search(r"^matplotlib==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE).group(1)
    for path in drawn:
        committed = (DRAWN / path.name).read_text(encoding="utf-8")
        assert '<g id="derivative">' in committed
        if matplotlib.__version__ == pinned:
            assert path.read_text(encoding="utf-8") == committed, f"{path.name} is out of date: run make docs"
