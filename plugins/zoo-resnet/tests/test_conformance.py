"""The model suite on one small member of each family."""

from spikecore.testing import ModelSuite


class TestSpikingResNet18(ModelSuite):
    component = "spiking_resnet18"
    options = {"width": 8}


class TestSEWResNet18(ModelSuite):
    component = "sew_resnet18"
    options = {"width": 8}


class TestMSResNet18(ModelSuite):
    component = "ms_resnet18"
    options = {"width": 8}
