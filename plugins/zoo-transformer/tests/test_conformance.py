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


@pytest.mark.skipif(not os.environ.get("SPIKE_FULL"), reason="a size of a family tested above: with SPIKE_FULL=1")
class _Full:
    """Mixed into the suites of the other sizes: the same code with other numbers. `test_sizes` builds each."""


for entry in registry().components("model"):
    if entry.target.startswith("spikecore_zoo_transformer.") and entry.name not in TESTED:
        options = small_options(entry.name)
        # Small patches, as above: with the published ones so small images are few tokens, and attention stays silent.
        patch = "first_patch" if entry.name.startswith("qkformer") else "patch_size"
        base = suite_for("model", entry.name, {**options, patch: 1 if patch == "first_patch" else 4})
        members = {"input_shapes": TestSpikeDrivenTransformer.input_shapes} if entry.name.startswith("sdt") else {}
        globals()[base.__name__] = type(base.__name__, (_Full, base), members)
