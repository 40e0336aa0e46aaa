"""The model suite on one small member of each family."""

from spikecore.testing import ModelSuite


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
