"""The model suite on one small member of each family; on every size with SPIKE_FULL=1."""

import os

import pytest

from spikecore.registry import registry
from spikecore.testing import ModelSuite
from spikecore.testing.suite import suite_for

TESTED = ("spiking_resnet18", "sew_resnet18", "ms_resnet18")


class TestSpikingResNet18(ModelSuite):
    component = "spiking_resnet18"
    options = {"width": 8}


class TestSEWResNet18(ModelSuite):
    component = "sew_resnet18"
    options = {"width": 8}


class TestMSResNet18(ModelSuite):
    component = "ms_resnet18"
    options = {"width": 8}


@pytest.mark.skipif(not os.environ.get("SPIKE_FULL"), reason="a size of a family tested above: with SPIKE_FULL=1")
class _Full:
    """Mixed into the suites of the other sizes: the same code with other numbers. `test_sizes` builds each."""


for entry in registry().components("model"):
    if entry.target.startswith("spikecore_zoo_resnet.") and entry.name not in TESTED:
        width = 16 if "32x4d" in entry.name else 8  # each of 32 groups needs a channel
        base = suite_for("model", entry.name, {"width": width})
        globals()[base.__name__] = type(base.__name__, (_Full, base), {})
