"""The page on SpikingJelly's parts names what there is: components and names that exist, and none is left out."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from spikecore.kinds import KINDS
from spikecore.registry.catalogue import known
from spikecore.registry.commands import COMMANDS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/parity.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMPARED, _ = TEXT.split("\n## Only here\n")
SECTIONS = (
    *("1.1", "1.2", "1.3", "1.4", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.7", "2.8"),
    *("3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7", "3.8", "4", "5.1", "5.2", "5.3", "6.1", "6.2", "6.3"),
    *("7", "8.1", "8.2", "8.3"),
)
HEAD = ["SpikingJelly", "here", "status", "note"]
COMPONENTS = {(kind, name) for kind, name in known() if kind in KINDS}


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


LINES = [cells(line) for line in COMPARED.splitlines() if line.startswith("|") and not line.startswith("|---")]
ROWS = [row for row in LINES if row != HEAD]
NAMED = sorted(set(re.findall(rf"`({'|'.join(KINDS)}):([^`]+)`", TEXT)))
DOTTED = sorted(set(re.findall(r"`(spikecore(?:_\w+)?\.[\w.]+)`", TEXT)))  # whatever the row's status


def test_every_section_has_a_table():
    parts = re.split(r"^###? (?=\d)", COMPARED, flags=re.MULTILINE)[1:]
    with_rows = [re.match(r"[\d.]*\d", part).group() for part in parts if "\n| SpikingJelly |" in part]
    assert with_rows == list(SECTIONS)
    assert len(LINES) - len(ROWS) == len(SECTIONS)


def test_every_row_has_a_status():
    assert len(ROWS) >= 290
    for row in ROWS:
        assert len(row) == 4, row
        assert row[0], row
        assert row[2] in ("here", "to come", "not taken"), row
        assert row[1] or row[2] != "here", f"says that it is here, not where: {row}"
        assert row[3] or row[2] != "not taken", f"does not say why: {row}"


def test_no_part_stands_twice():
    firsts = [row[0] for row in ROWS if row[0].startswith("`") and not row[0].startswith("`set_")]
    twice = {first for first in firsts if firsts.count(first) > 1}
    assert not twice


def test_every_component_on_the_page_is_known():
    assert len(NAMED) >= 80
    assert not set(NAMED) - COMPONENTS


def test_every_component_stands_on_the_page():
    assert len(COMPONENTS) >= 80
    assert not COMPONENTS - set(NAMED)


@pytest.mark.parametrize("name", DOTTED)
def test_a_dotted_name_imports(name, monkeypatch):
    for source in sorted(ROOT.glob("plugins/*/src")):
        monkeypatch.syspath_prepend(str(source))
    module, rest = name, []
    while True:
        try:
            member = import_module(module)
            break
        except ModuleNotFoundError as error:
            if "." not in module or not name.startswith(str(error.name)):
                raise
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
    for part in rest:
        member = getattr(member, part)
    assert member is not None


def test_there_are_dotted_names():
    assert len(DOTTED) >= 150


def test_every_command_exists():
    commands = set(re.findall(r"`spike ([a-z-]+)", TEXT))
    assert len(commands) >= 8
    assert commands <= set(COMMANDS)


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) >= 15
    for link in links:
        path, _, anchor = link.partition("#")
        target = (PAGE.parent / path).resolve() if path else PAGE
        assert target.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, link
