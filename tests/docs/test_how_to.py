"""The examples of the how-to and explanation pages run, and print what they say; components of theirs pass."""

import contextlib
import io
import re
import sys
import types
from pathlib import Path

import pytest

from spikecore.registry import Blocking, Registry, use
from spikecore.testing.proving import prove

FOLDER = Path(__file__).parents[2] / "docs/how-to"
NAMES = (
    "coming-from-spikingjelly",
    "look-inside-a-net",
    "write-a-converter",
    "write-a-dataset",
    "write-a-deployer",
    "write-a-trainer",
)
EXPLAINED = ("backends", "conventions", "microkernel", "neuron-language", "spike-products", "state-and-time")
PAGES = [FOLDER / f"{name}.md" for name in NAMES]
PAGES += [FOLDER.parent / f"explanation/{name}.md" for name in EXPLAINED]


@pytest.fixture(autouse=True)
def registry():
    """What the pages register is gone after them."""
    with use(Registry(blocking=Blocking())) as own:
        yield own


def blocks_of(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def defined(monkeypatch, blocks):
    """What these blocks define, in a module that can be imported: splits are pickled by their names in it."""
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for block in blocks:
        exec(block, vars(module))
    return vars(module)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_from_top_to_bottom(page):
    blocks = blocks_of(page)
    assert blocks
    names, out = {"__name__": page.stem}, io.StringIO()
    with contextlib.redirect_stdout(out):
        for number, block in enumerate(blocks):
            exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    said = [
        line.split("  # ")[1].strip()
        for block in blocks
        for line in block.splitlines()
        if re.match(r"\s*print.*  # ", line)
    ]
    printed = out.getvalue().splitlines()
    assert said
    assert [line for line in said if line not in printed] == []


@pytest.mark.parametrize(
    ("kind", "name", "num_blocks"),
    [("converter", "Rates", 2), ("dataset", "Movements", 1), ("deployer", "Chip", 2), ("trainer", "Simple", 1)],
)
def test_the_component_of_a_page_passes_its_suite(kind, name, num_blocks, registry, monkeypatch):
    names = defined(monkeypatch, blocks_of(FOLDER / f"write-a-{kind}.md")[:num_blocks])
    registry.register(kind, "mine", names[name])
    report = prove(kind, "mine")
    bad = {check["name"]: check["reason"] for check in report["checks"] if check["outcome"] == "failed"}
    assert bad == {}
    assert report["ok"]


def test_a_dataset_of_several_lengths_passes_its_suite_too(registry, monkeypatch):
    blocks = blocks_of(FOLDER / "write-a-dataset.md")
    names = defined(monkeypatch, [blocks[0], blocks[3]])
    registry.register("dataset", "mine", names["UnevenMovements"])
    report = prove("dataset", "mine")
    assert {check["name"]: check["reason"] for check in report["checks"] if check["outcome"] == "failed"} == {}
    assert report["ok"]


def test_the_pages_are_there():
    assert all(page.is_file() for page in PAGES)
