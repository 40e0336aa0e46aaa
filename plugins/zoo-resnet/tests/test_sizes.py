"""Parameters and MACs of every model, counted on the meta device, against published numbers.

Those of spiking ResNet and SEW-ResNet are torchvision's for the ANN of the same shape; those of MS-ResNet are the
paper's millions. Neurons are LIF, which learn nothing.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spikecore import create, nn
from spikecore.registry import registry

OURS = sorted(
    entry.name for entry in registry().components("model") if entry.target.startswith("spikecore_zoo_resnet.")
)
# size → parameters and billions of MACs, as torchvision documents them for 224² and 1000 classes
TORCHVISION = {
    "resnet18": (11_689_512, 1.81),
    "resnet34": (21_797_672, 3.66),
    "resnet50": (25_557_032, 4.09),
    "resnet101": (44_549_160, 7.80),
    "resnet152": (60_192_808, 11.51),
    "resnext50_32x4d": (25_028_904, 4.23),
    "resnext101_32x8d": (88_791_336, 16.41),
    "wide_resnet50_2": (68_883_240, 11.40),
    "wide_resnet101_2": (126_886_696, 22.75),
}
MS_MILLIONS = {"ms_resnet18": 11.69, "ms_resnet34": 21.80, "ms_resnet104": 77.28}


def count(name, input_shape, num_outputs):
    """Parameters, and MACs of one sample in one step."""
    with torch.device("meta"):
        net = create("model", name, lambda: nn.LIF(backend="torch"), input_shape, num_outputs).eval()
        nn.set_step_mode(net, "single")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.empty(1, *input_shape))
    return sum(parameter.numel() for parameter in net.parameters()), counter.get_total_flops() // 2


def test_the_plugin_has_as_many_models_as_it_should():
    assert len(OURS) == 9 + 9 + 3


@pytest.mark.parametrize("name", OURS)
def test_parameters_and_macs(name):
    info = registry().load("model", name).info
    assert count(name, info.input_shape, info.num_outputs) == (info.parameters, info.macs)
    family, _, size = name.partition("_")
    if family == "ms":
        assert round(info.parameters / 1e6, 2) == MS_MILLIONS[name]
        return
    parameters, macs = TORCHVISION[size]
    assert info.parameters == parameters
    assert round(info.macs / 1e9, 2) == macs
