"""The model suite on one small member of each family; on every net with SPIKE_FULL=1."""

import os

import pytest

from spikecore.registry import registry
from spikecore.testing import ModelSuite
from spikecore.testing.suite import suite_for

TESTED = ("spiking_vgg11_bn", "plif_mnist", "ottt_spiking_vggws", "vgg_cifar10_dvs")


class TestSpikingVGG11BN(ModelSuite):
    component = "spiking_vgg11_bn"
    options = {"width": 4, "grid": 1, "hidden": 32}


class TestPLIFMNIST(ModelSuite):
    component = "plif_mnist"
    options = {"channels": 6, "hidden": 24, "votes": 2}


class TestOTTTSpikingVGGWS(ModelSuite):
    component = "ottt_spiking_vggws"
    options = {"width": 4, "gain": 4.0}


class TestCIFAR10DVSVGG(ModelSuite):
    component = "vgg_cifar10_dvs"
    options = {"width": 4}


NARROW = ("spiking_vgg13", "ottt_spiking_vgg13")
"""With four filters drawn for one channel, none in the first layer fires for a single sample."""


def small_options(name):
    if name.startswith("plif_"):
        return {"channels": 6, "hidden": 24, "votes": 2}
    options = {"width": 8 if name in NARROW else 4, "grid": 1, "hidden": 32}
    return {**options, "gain": 4.0} if name.endswith("_ws") else options


@pytest.mark.skipif(not os.environ.get("SPIKE_FULL"), reason="a size of a family tested above: with SPIKE_FULL=1")
class _Full:
    """Mixed into the suites of the other nets, which are the same code with other numbers; `test_sizes` builds each."""


for entry in registry().components("model"):
    if entry.target.startswith("spikecore_zoo_vgg.") and entry.name not in TESTED:
        base = suite_for("model", entry.name, small_options(entry.name))
        globals()[base.__name__] = type(base.__name__, (_Full, base), {})
