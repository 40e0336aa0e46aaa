from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Environments of the tests are found by name, in this process and in those that it starts."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
