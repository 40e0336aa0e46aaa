"""The site builds without a warning, and its links lead somewhere; and each of these checks finds a planted fault."""

from spikecore.kinds import KINDS
from spikecore.registry import components, plugins
from tests.suites.places import ROOT
from tests.tools.doors import doors
from tests.tools.site import links
from tests.tools.site.components import page_name
from tests.tools.site.markup import inline, rst


def test_every_page_of_the_repository_is_there(site):
    pages = [
        page
        for folder in ("tutorials", "how-to", "reference", "explanation", "adr")
        for page in (ROOT / "docs" / folder).glob("*.md")
    ]
    assert len(pages) > 40
    assert [page.name for page in pages if not (site / page.relative_to(ROOT).with_suffix(".html")).is_file()] == []


def test_every_plugin_component_and_door_has_a_page(site):
    generated = site / "docs/generated"
    assert {path.stem for path in (generated / "plugins").glob("*.html")} >= {plugin.id for plugin in plugins()}
    entries = [entry for kind in KINDS for entry in components(kind) if entry.status == "ok"]
    assert len(entries) > 100
    assert len({page_name(entry) for entry in entries}) == len(entries)
    assert [entry for entry in entries if not (generated / f"components/{page_name(entry)}.html").is_file()] == []
    assert [door for door in doors() if not (generated / f"api/{door}.html").is_file()] == []


def test_a_component_is_described_in_the_words_of_info(site):
    text = (site / "docs/generated/components/neuron-lif.html").read_text(encoding="utf-8")
    assert "number &gt; 1" in text or "number &gt;= 1" in text
    assert "decay_input" in text
    assert "true or false" in text
    assert "step_modes" in text  # its capabilities


def test_a_link_that_leads_nowhere_is_seen(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">b</a> <a href="c.html">c</a> <a href="https://example.org">x</a>'
    )
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1>')
    assert links.broken(tmp_path) == ["a.html: b.html#here", "a.html: c.html"]
    (tmp_path / "b.html").write_text('<h1 id="here">b</h1>')
    (tmp_path / "c.html").write_text("<p>c</p>")
    assert links.broken(tmp_path) == []


def test_docstrings_become_markup_without_markup_of_their_own():
    assert inline("`x` is a*b, |c|, tail_") == r"\ ``x``\  is a\*b, \|c\|, tail\_"
    lines = rst("One line.\n\n    h = v + x\n\nArgs:\n    tau, beta: in\n        steps.\n\n* a bullet")
    assert "    h = v + x" in lines
    assert lines[lines.index("``tau``, ``beta``") + 1] == "    in steps."
    assert "* a bullet" in lines
    assert "    h = v + x   soft:  v = h - s" in rst("h = v + x   soft:  v = h - s")
    assert rst("h = v + x\nv = (1 - s) h") == ["", "| h = v + x", "| v = (1 - s) h", ""]
