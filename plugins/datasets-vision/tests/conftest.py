import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("quiet", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("quiet")

sys.path.insert(0, str(Path(__file__).parent))  # for writers.py and tiny.py, which several test files share


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data directory."""
    monkeypatch.setenv("SPIKECORE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"
