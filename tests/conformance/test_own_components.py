"""Every component that is installed here, through the suite of its kind, with no special case."""

from collections import Counter

from spikecore.registry import components
from spikecore.testing.suite import suite_for

READY = ("neuron", "surrogate", "encoder", "backend", "model", "dataset", "trainer")
ENTRIES = [entry for entry in components() if entry.kind in READY and entry.status == "ok"]
FEWEST = {"neuron": 2, "surrogate": 8, "encoder": 4, "backend": 1}

for entry in ENTRIES:
    suite = suite_for(entry.kind, entry.qualified)
    globals()[suite.__name__] = suite


def test_none_is_missing():
    count = Counter(entry.kind for entry in ENTRIES)
    assert all(count[kind] >= fewest for kind, fewest in FEWEST.items()), count
    assert len([name for name in globals() if name.startswith("Test")]) == len(ENTRIES)
