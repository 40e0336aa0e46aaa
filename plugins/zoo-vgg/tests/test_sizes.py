"""Parameters and MACs of every model, counted on the meta device, against formulas and published numbers.

The formulas follow from the shapes in the papers and know nothing of the code; published is torchvision's table for
VGG. Biases of convolutions and linear layers are no MACs.
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


VGG = {
    "11": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "13": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "19": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
# name → input shape, outputs, convolutions and poolings, linear layers behind them
PLIF = {
    "plif_mnist": ((1, 28, 28), 10, "128 M 128 M", (2048, 100)),
    "plif_fashion_mnist": ((1, 28, 28), 10, "128 M 128 M", (2048, 100)),
    "plif_n_mnist": ((2, 34, 34), 10, "128 M 128 M", (2048, 100)),
    "plif_cifar10": ((3, 32, 32), 10, "256 256 256 M 256 256 256 M", (2048, 100)),
    "plif_cifar10_dvs": ((2, 128, 128), 10, "128 M 128 M 128 M 128 M", (512, 100)),
    "plif_dvs_gesture": ((2, 128, 128), 11, "128 M 128 M 128 M 128 M 128 M", (512, 110)),
}
WIDE = "64 128 M 256 256 M 512 512 M 512 512"


def chain(shape, words, linear, per_channel, per_feature=1, grid=None):
    """Parameters and MACs of 3×3 convolutions and poolings, then linear layers.

    Args:
        shape: of the input.
        words: channels of a convolution, or M for a pooling that halves.
        linear: widths of the linear layers.
        per_channel: parameters of a convolution beside its weights, for each channel: bias 1, norm 2, gain 1.
        per_feature: likewise of linear layers; the last has only a bias.
        grid: height and width of what the linear layers take, where it is not that of the last map.
    """
    channels, side, _ = shape
    parameters = macs = 0
    for word in words.split():
        if word == "M":
            side //= 2
            continue
        weights = 9 * channels * int(word)
        parameters += weights + per_channel * int(word)
        macs += weights * side**2
        channels = int(word)
    features = channels * (grid or side) ** 2
    for index, width in enumerate(linear):
        is_last = index == len(linear) - 1
        parameters += features * width + (1 if is_last else per_feature) * width
        macs += features * width
        features = width
    return parameters, macs


def by_hand(name):
    if name in PLIF:
        shape, _, words, linear = PLIF[name]
        return chain(shape, words, linear, per_channel=2)
    if name == "ottt_spiking_vggws":
        return chain((3, 32, 32), WIDE, (10,), per_channel=2, grid=1)  # bias and gain
    if name == "vgg_cifar10_dvs":
        return chain((2, 48, 48), WIDE + " M", (10,), per_channel=3)
    size = name.removesuffix("_bn").removesuffix("_ws")[-2:]
    is_standardized = name.endswith("_ws")
    per_channel = {"bn": 3, "ws": 2}.get(name[-2:], 1)
    return chain((3, 224, 224), VGG[size], (4096, 4096, 1000), per_channel, 2 if is_standardized else 1, grid=7)


@pytest.mark.parametrize("name", OURS)
def test_parameters_and_macs(name):
    """What the code has, what `spike info` shows and the formula are equal; published numbers follow."""
    info = registry().load("model", name).info
    assert (info.parameters, info.macs) == by_hand(name)
    assert count(name, info.input_shape, info.num_outputs) == by_hand(name)
    if name in PLIF:
        assert (info.input_shape, info.num_outputs) == PLIF[name][:2]
    if name in TORCHVISION:
        parameters, macs = TORCHVISION[name]
        assert info.parameters == parameters
        assert round(info.macs / 1e9, 2) == macs
