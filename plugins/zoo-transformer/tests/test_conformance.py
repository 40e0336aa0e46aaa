"""The model suite on one small member of each family."""

from spikecore.testing import ModelSuite


class TestSpikformer(ModelSuite):
    component = "spikformer_4_384"
    options = {"depth": 1, "dim": 16, "heads": 2, "mlp_ratio": 2}


class TestSpikeDrivenTransformer(ModelSuite):
    component = "sdt_2_512"
    options = {"depth": 1, "dim": 16, "mlp_ratio": 2}


class TestQKFormer(ModelSuite):
    component = "qkformer_4_384"
    options = {"depths": (1, 0, 1), "dim": 32, "heads": 2, "mlp_ratio": 2}
