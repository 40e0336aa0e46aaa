"""Every component that is installed here, through the suite of its kind, with no special case.

A component that cannot be made without options is proved, with some, in its plugin's own tests; core has none such.
"""

from collections import Counter

from spikecore.kinds import KINDS
from spikecore.registry import components, load
from spikecore.testing.proving import required_options
from spikecore.testing.suite import suite_for

FEWEST = {"neuron": 6, "surrogate": 8, "encoder": 4, "backend": 1, "model": 2, "dataset": 1, "trainer": 1}
READY = [entry for entry in components() if entry.status == "ok"]
ENTRIES = [entry for entry in READY if not required_options(load(entry.kind, entry.qualified))]

for entry in ENTRIES:
    suite = suite_for(entry.kind, entry.qualified)
    globals()[suite.__name__] = suite


def test_none_is_missing():
    core = [entry for entry in components() if entry.plugin.id == "core"]
    assert all(entry in ENTRIES for entry in core)
    count = Counter(entry.kind for entry in core)
    assert set(count) <= set(KINDS)
    assert all(count[kind] >= fewest for kind, fewest in FEWEST.items()), count
    assert len([name for name in globals() if name.startswith("Test")]) == len(ENTRIES)
