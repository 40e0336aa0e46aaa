"""`spike` called in this process."""

import sys

import pytest

from spikecore.cli import main
from spikecore.registry import Blocking, Registry, use


@pytest.fixture
def spike(monkeypatch, capfd, tmp_path):
    """`spike ARGUMENTS` in an empty directory: `(exit status, what it printed)`."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["spike", *map(str, arguments)])
        status = 0
        try:
            with use(Registry(blocking=Blocking())):
                main()
        except SystemExit as stop:
            status = stop.code or 0
        return status, "".join(capfd.readouterr())

    return call
