"""The model suite on one small member of each family.

The sizes of a family are the same code with other numbers; `test_sizes` builds each of them.
"""

from spikecore.testing import ModelSuite


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
