"""Parameters and MACs of every model, counted on the meta device, against formulas and published numbers.

The formulas follow from the tables of He et al. 2015, Xie et al. 2016 (groups) and Zagoruyko and Komodakis 2016 (wide)
and know nothing of the code. Published are torchvision's table for the ANN of the same shape, and the millions of
parameters of MS-ResNet in the tables of Hu et al. 2021. Neurons are LIF, which learn nothing.
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


# size → blocks of each stage; is it of bottlenecks; groups, and their width for 64 planes
SHAPES = {
    "resnet18": ((2, 2, 2, 2), False, 1, 64),
    "resnet34": ((3, 4, 6, 3), False, 1, 64),
    "resnet50": ((3, 4, 6, 3), True, 1, 64),
    "resnet101": ((3, 4, 23, 3), True, 1, 64),
    "resnet152": ((3, 8, 36, 3), True, 1, 64),
    "resnext50_32x4d": ((3, 4, 6, 3), True, 32, 4),
    "resnext101_32x8d": ((3, 4, 23, 3), True, 32, 8),
    "wide_resnet50_2": ((3, 4, 6, 3), True, 1, 128),
    "wide_resnet101_2": ((3, 4, 23, 3), True, 1, 128),
    "resnet104": ((3, 8, 32, 8), False, 1, 64),
}


def conv(size, channels, out, side, groups=1):
    """Parameters of a convolution without bias and its norm, and MACs of the convolution."""
    weights = size * size * channels // groups * out
    return weights + 2 * out, weights * side**2


def by_hand(name):
    """Parameters and MACs for 224² in three colours and 1000 classes."""
    is_ms = name.startswith("ms_")
    depths, is_bottleneck, groups, group_width = SHAPES[name.split("_", 1)[1]]
    layers = [conv(7, 3, 64, 112)]
    side, channels = (112 if is_ms else 56), 64  # MS-ResNet halves in its first block, the others by pooling
    for stage, depth in enumerate(depths):
        planes = 64 << stage
        out = 4 * planes if is_bottleneck else planes
        for block in range(depth):
            halves = block == 0 and (stage > 0 or is_ms)
            before, side = side, (side // 2 if halves else side)
            if is_bottleneck:
                inner = planes * group_width // 64 * groups
                layers += [conv(1, channels, inner, before), conv(3, inner, inner, side, groups)]
                layers.append(conv(1, inner, out, side))
            else:
                layers += [conv(3, channels, planes, side), conv(3, planes, planes, side)]
            if halves or channels != out:
                layers.append(conv(1, channels, out, side))
            channels = out
    parameters, macs = (sum(values) for values in zip(*layers, strict=True))
    return parameters + (channels + 1) * 1000, macs + channels * 1000


def test_the_plugin_has_as_many_models_as_it_should():
    assert len(OURS) == 9 + 9 + 3


@pytest.mark.parametrize("name", OURS)
def test_parameters_and_macs(name):
    """What the code has, what `spike info` shows and the formula are equal; published numbers follow."""
    info = registry().load("model", name).info
    assert (info.input_shape, info.num_outputs) == ((3, 224, 224), 1000)
    assert (info.parameters, info.macs) == by_hand(name)
    assert count(name, info.input_shape, info.num_outputs) == by_hand(name)
    family, _, size = name.partition("_")
    if family == "ms":
        assert round(info.parameters / 1e6, 2) == MS_MILLIONS[name]
        return
    parameters, macs = TORCHVISION[size]
    assert info.parameters == parameters
    assert round(info.macs / 1e9, 2) == macs
