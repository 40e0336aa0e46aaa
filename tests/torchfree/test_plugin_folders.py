"""The plugins of this repository have the shape that `spike new-plugin` gives."""

import sys
from pathlib import Path

import pytest

from spikecore.registry.catalogue import CORE_ID, known
from spikecore.scaffold import render
from tests.tools import catalogue

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDERS = sorted(path.parent for path in Path(__file__).parents[2].glob("plugins/*/pyproject.toml"))
OWN = {"description", "version", "optional-dependencies", "entry-points", "dependencies", "authors", "classifiers"}
"""Keys whose values are a plugin's own; all others are the template's."""


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_there_are_plugins():
    assert len(FOLDERS) >= 1


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_files_and_metadata_are_those_of_the_template(folder, tmp_path):
    template = render("fresh-thing", "neuron", tmp_path)
    package = f"spikecore_{folder.name.replace('-', '_')}"
    wanted = ["CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml", "tests"]
    wanted += [f"src/{package}/{name}" for name in ("__init__.py", "plugin.py", "py.typed")]
    assert [name for name in wanted if not (folder / name).exists()] == []
    assert (folder / "LICENSE").read_text() == (template / "LICENSE").read_text()

    ours, theirs = project(folder), project(template)
    assert ours["name"] == f"spikecore-{folder.name}"
    assert {key: ours.get(key) for key in theirs if key not in OWN | {"name"}} == {
        key: value for key, value in theirs.items() if key not in OWN | {"name"}
    }
    assert set(theirs["dependencies"]) <= {*ours["dependencies"], "torch>=2.11"}
    assert ours["optional-dependencies"]["testing"][:1] == ["spikecore[testing]"]
    assert ours["entry-points"]["spikecore.plugins"] == {folder.name: f"{package}.plugin"}


def test_the_catalogue_is_that_of_the_projects():
    assert catalogue.FILE.read_text(encoding="utf-8") == catalogue.generated(), "run `make catalogue`"
    assert set(known().values()) == {CORE_ID, *(folder.name for folder in FOLDERS)}


def test_a_name_in_two_projects_is_refused(tmp_path):
    for folder in ("", "plugins/a", "plugins/b"):
        points = "" if not folder else '[project.entry-points."spikecore.neurons"]\nx = "m:X"\n'
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "pyproject.toml").write_text(f'[project]\nname = "n"\n{points}')
    with pytest.raises(SystemExit, match="neuron:x is offered by a and by b"):
        catalogue.generated(tmp_path)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_source_is_of_this_python(folder):
    sources = sorted(folder.rglob("*.py"))
    assert sources
    for path in sources:
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
