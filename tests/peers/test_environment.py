"""What is compared with: the tested versions, and none of them missing without notice."""

import importlib.metadata
from pathlib import Path

import pytest

from tests.peers.compare import require
from tests.suites.environments import PEERS

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def test_the_versions_are_those_in_the_constraints():
    pinned = dict(line.split(";")[0].strip().split("==") for line in CONSTRAINTS.read_text().splitlines() if line)
    for name in PEERS:
        require(name)
        assert importlib.metadata.version(name) == pinned[name]
    assert len(PEERS) >= 4


def test_a_missing_library_fails_the_check_and_is_skipped_elsewhere(monkeypatch):
    monkeypatch.setenv("SPIKE_PEERS", "1")
    with pytest.raises(ModuleNotFoundError):
        require("no_such_library")
    monkeypatch.delenv("SPIKE_PEERS")
    with pytest.raises(pytest.skip.Exception, match="make check installs it"):
        require("no_such_library")
