"""The example of a third party's plugin imports only what plugins may import."""

import ast
import configparser

import pytest

from tests.suites.places import ROOT

SOURCES = sorted((ROOT / "examples/external-plugin/src").rglob("*.py"))


def doors():
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    return config["importlinter:contract:plugins"]["doors"].split()


def imported(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def beyond(text):
    """The modules of core that are behind no door."""
    # Whatever lies below the package itself would be behind that door.
    inner_doors = [door for door in doors() if door != "spikecore"]
    hidden = []
    for name in imported(text):
        is_behind_door = any(name == door or name.startswith(f"{door}.") for door in inner_doors)
        if name.startswith("spikecore.") and not is_behind_door:
            hidden.append(name)
    return hidden


def test_the_check_sees_an_inner_module():
    assert beyond("from spikecore.run.config import parse\nimport spikecore.registry") == [
        "spikecore.run.config",
        "spikecore.registry",
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_file_uses_the_doors_only(path):
    text = path.read_text(encoding="utf-8")
    assert beyond(text) == []


def test_there_are_a_neuron_a_backend_and_a_deployer():
    assert {"neuron", "backend", "deployer", "plugin"} <= {path.stem for path in SOURCES}
