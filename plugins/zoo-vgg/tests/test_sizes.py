"""Parameters and MACs of every model, counted on the meta device, against published numbers.

Those of VGG are torchvision's; those of the others follow from the shapes in the papers. Biases of convolutions and
linear layers are no MACs.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spikecore import create, nn
from spikecore.registry import registry

OURS = sorted(entry.name for entry in registry().components("model") if entry.target.startswith("spikecore_zoo_vgg."))
# name → millions of parameters and billions of MACs, as torchvision documents them for 224² and 1000 classes
TORCHVISION = {
    "spiking_vgg11": (132_863_336, 7.61),
    "spiking_vgg11_bn": (132_868_840, 7.61),
    "spiking_vgg13": (133_047_848, 11.31),
    "spiking_vgg13_bn": (133_053_736, 11.31),
    "spiking_vgg16": (138_357_544, 15.47),
    "spiking_vgg16_bn": (138_365_992, 15.47),
    "spiking_vgg19": (143_667_240, 19.63),
    "spiking_vgg19_bn": (143_678_248, 19.63),
}


def count(name, input_shape, num_outputs):
    """Parameters, and MACs of one sample in one step."""
    with torch.device("meta"):
        net = create("model", name, lambda: nn.LIF(backend="torch"), input_shape, num_outputs).eval()
        nn.set_step_mode(net, "single")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.empty(1, *input_shape))
    return sum(parameter.numel() for parameter in net.parameters()), counter.get_total_flops() // 2


def test_the_plugin_has_as_many_models_as_it_should():
    assert len(OURS) == 24


@pytest.mark.parametrize("name", OURS)
def test_parameters_and_macs(name):
    info = registry().load("model", name).info
    assert count(name, info.input_shape, info.num_outputs) == (info.parameters, info.macs)
    if name in TORCHVISION:
        parameters, macs = TORCHVISION[name]
        assert info.parameters == parameters
        assert round(info.macs / 1e9, 2) == macs


def test_plif_by_hand():
    """MNIST, 28²: two 3×3 convolutions with norms, 128 · 7² → 2048 → 100."""
    wide, maps = 128, 128 * 7 * 7
    convolutions = 9 * wide + 9 * wide * wide + 4 * wide
    linear = (maps + 1) * 2048 + (2048 + 1) * 100
    assert registry().load("model", "plif_mnist").info.parameters == convolutions + linear
