"""The model suite on one small member of each family; on every size with SPIKE_FULL=1."""

import os

import pytest

from spikecore.registry import registry
from spikecore.testing import ModelSuite
from spikecore.testing.suite import suite_for

TESTED = ("spikformer_4_384", "sdt_2_512", "qkformer_4_384", "qkformer_2_256")


class TestSpikformer(ModelSuite):
    component = "spikformer_4_384"
    options = {"depth": 1, "dim": 16, "heads": 2, "mlp_ratio": 2, "attention_scale": 2.0}


class TestSpikeDrivenTransformer(ModelSuite):
    component = "sdt_2_512"
    input_shapes = ((1, 32, 32), (3, 34, 30))  # so many tokens that their sums reach a threshold
    options = {"depth": 1, "dim": 32, "mlp_ratio": 1, "attention_scale": 2.0}


class TestQKFormer(ModelSuite):
    component = "qkformer_4_384"
    options = {"depths": (1, 0, 1), "dim": 32, "heads": 2, "mlp_ratio": 2, "attention_scale": 2.0}


class TestQKFormerForEvents(ModelSuite):
    component = "qkformer_2_256"
    input_shapes = ((2, 32, 32), (1, 34, 30))
    options = {"dim": 32, "heads": 2, "mlp_ratio": 2, "attention_scale": 2.0}


def small_options(name):
    if name.startswith("qkformer"):
        return TestQKFormer.options
    return TestSpikformer.options if name.startswith("spikformer") else TestSpikeDrivenTransformer.options


def shapes_of(name, smallest):
    """Nets that halve the image four times would have a single token: too few for a sum to reach a threshold."""
    if smallest < 16 or name.startswith("qkformer"):
        return ()
    return ((1, 32, 32), (3, 34, 37)) if name.startswith("spikformer") else ((1, 64, 64), (3, 66, 62))


@pytest.mark.skipif(not os.environ.get("SPIKE_FULL"), reason="a size of a family tested above: with SPIKE_FULL=1")
class _Full:
    """Mixed into the suites of the other sizes: the same code with other numbers. `test_sizes` builds each."""


for entry in registry().components("model"):
    if entry.target.startswith("spikecore_zoo_transformer.") and entry.name not in TESTED:
        base = suite_for("model", entry.name, small_options(entry.name))
        shapes = shapes_of(entry.name, base().capabilities.min_input_size)
        globals()[base.__name__] = type(base.__name__, (_Full, base), {"input_shapes": shapes})
