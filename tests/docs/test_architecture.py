"""The page on the architecture names what is there: paths, modules, the layers of `.importlinter`, links."""

import configparser
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest

import spikecore

ROOT = Path(spikecore.__file__).parents[1]
PAGE = ROOT / "docs/explanation/architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")
CODE = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL))
PACKAGES = {module.name for module in pkgutil.iter_modules([str(ROOT / "spikecore")])}
BASES = (ROOT, ROOT / "spikecore", ROOT / "spikecore/backends", ROOT / "spikecore/dynamics")
"""What paths on the page are relative to; `kit/` and `passes/` stand in the row of their package."""

LAYOUT = re.findall(r"^([\w/.]+/)(?:<name>/)? +\S", TEXT.split("```")[1], flags=re.MULTILINE)
WRITTEN_BY_RUNS = ("run.json",)
IS_PATH = re.compile(r"[\w./-]*(/[\w.-]*|\.(py|md|toml|json))")
PATHS = [name for name in CODE if IS_PATH.fullmatch(name) and name not in WRITTEN_BY_RUNS]
NAMES = [
    name.partition("(")[0]
    for name in CODE
    if re.fullmatch(r"[a-z_]+(\.\w+)+(\(.*\))?", name) and name.split(".")[0] in {*PACKAGES, "spikecore"}
]
OTHER = (*PATHS, *WRITTEN_BY_RUNS, "spikecore.choices")  # the last is a group of entry points
NAMES = [name for name in NAMES if name not in OTHER]
LINKS = re.findall(r"\]\(([^)#]+)", TEXT)


def layers():
    """The packages of each layer, from top to bottom."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    lines = contracts["importlinter:contract:layers"]["layers"].split("\n")
    return [[name.strip() for name in line.split("|")] for line in lines if line.strip()]


def rows():
    """The packages of each row of the page's table."""
    cells = re.findall(r"^\| (`[^|]+`) \|", TEXT, flags=re.MULTILINE)
    return [re.findall(r"`(\w+)`", cell) for cell in cells]


@pytest.mark.parametrize("path", sorted({*PATHS, *LAYOUT}))
def test_a_path_exists(path):
    assert any((base / path).exists() for base in BASES)


@pytest.mark.parametrize("name", sorted(set(NAMES)))
def test_a_name_exists(name):
    parts = name.removeprefix("spikecore.").split(".")
    value = spikecore
    if parts[0] in PACKAGES:
        value = import_module(f"spikecore.{parts.pop(0)}")
    for part in parts:
        value = getattr(value, part) if hasattr(value, part) else import_module(f"{value.__name__}.{part}")


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_a_link_leads_somewhere(link):
    assert (PAGE.parent / link).exists()


def test_the_table_holds_every_layer_in_order():
    """`__main__`, `plugin` and `version` are single modules without a place in the story."""
    in_order = [name for layer in layers() for name in sorted(layer)]
    in_table = [name for row in rows() for name in sorted(row)]
    assert set(in_order) - set(in_table) == {"__main__", "plugin", "version"}
    assert set(in_table) <= set(in_order)
    place = {name: number for number, layer in enumerate(layers()) for name in layer}
    places = [min(place[name] for name in row) for row in rows()]
    assert places == sorted(places)
    assert set(in_order) == PACKAGES


def test_every_command_of_make_exists():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = re.findall(r"`make ([\w-]+)`", TEXT)
    assert named
    assert set(named) <= set(targets)


def test_there_is_something_to_check():
    assert len(PATHS) >= 10
    assert len(NAMES) >= 5
    assert len(LAYOUT) >= 4
    assert len(rows()) >= 10


def test_it_is_for_readers_of_the_repository():
    assert not re.search(r"\bissues?\b|[ (]#\d|\.\./shared|/work/", TEXT)
