"""The model suite on one small member of each family."""

from spikecore.testing import ModelSuite


class TestSpikingVGG11BN(ModelSuite):
    component = "spiking_vgg11_bn"
    options = {"width": 4, "grid": 1, "hidden": 32}


class TestPLIFMNIST(ModelSuite):
    component = "plif_mnist"
    options = {"channels": 6, "hidden": 24, "votes": 2}
