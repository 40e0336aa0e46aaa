"""Spiking VGG, the VGG of OTTT and the nets of PLIF against spikingjelly's own modules, with copied weights."""

import pytest
import torch

from spikecore import nn
from tests.peers.compare import require
from tests.peers.zoo import assert_equal_nets, settle_quickly, their_models

zoo = pytest.importorskip("spikecore_zoo_vgg")
sj_neuron = require("spikingjelly.activation_based.neuron")
sj_layer = require("spikingjelly.activation_based.layer")
sj_surrogate = require("spikingjelly.activation_based.surrogate")
sj_functional = require("spikingjelly.activation_based.functional")
spiking_vgg = their_models("spiking_vgg")
ottt = their_models("spiking_vggws_ottt")
parametric = their_models("parametric_lif_net")

T, B, CLASSES = 3, 3, 7
SHARED = {"v_threshold": 0.4, "detach_reset": True}
HIDDEN = 24
NARROW = {
    11: [4, "M", 8, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"],
    13: [4, 4, "M", 8, 8, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"],
}


def lif():
    return nn.LIF(tau=1.5, **SHARED, surrogate=nn.ATan(alpha=3.0), backend="torch")


def plif():
    return nn.ParametricLIF(init_tau=1.5, **SHARED, surrogate=nn.ATan(alpha=3.0), backend="torch")


def their_options(**more):
    return {**SHARED, **more, "surrogate_function": sj_surrogate.ATan(alpha=3.0)}


def pair(ours, theirs):
    """Both nets with our weights' scale, without dropout, in multi-step mode."""
    for name, value in theirs.state_dict().items():
        if value.dim() == 1 and name.endswith("weight"):
            value.uniform_(0.8, 1.4)
        elif name.endswith("bias"):
            value.uniform_(-0.1, 0.4)
        elif value.dim() == 2:
            value.normal_(0.0, (8 / value.shape[1]) ** 0.5)
    for part in (*ours.modules(), *theirs.modules()):
        if hasattr(part, "p") and "Dropout" in type(part).__name__:
            part.p = 0.0
    settle_quickly(ours, theirs)
    sj_functional.set_step_mode(theirs, "m")
    ours.load_state_dict(ours.import_weights("spikingjelly", theirs.state_dict()))
    return ours, theirs


def noise(*shape):
    return torch.rand(T, B, *shape, generator=torch.Generator().manual_seed(1)) * 2


@pytest.mark.parametrize("has_norms", [False, True])
@pytest.mark.parametrize("size", [11, 13])
def test_spiking_vgg(size, has_norms):
    """With four channels at first, and inner layers of 24, which their class does not offer."""
    torch.manual_seed(0)
    suffix = "BN" if has_norms else ""
    build = getattr(zoo.vgg, f"SpikingVGG{size}{suffix}")
    ours = build(lif, (3, 32, 32), CLASSES, width=4, hidden=HIDDEN)
    options = their_options(tau=1.5)
    theirs = spiking_vgg.SpikingVGG(
        NARROW[size],
        batch_norm=has_norms,
        norm_layer=sj_layer.BatchNorm2d if has_norms else None,
        num_classes=CLASSES,
        spiking_neuron=sj_neuron.LIFNode,
        **options,
    )
    theirs.classifier = torch.nn.Sequential(
        sj_layer.Linear(32 * 49, HIDDEN),
        sj_neuron.LIFNode(**options),
        sj_layer.Dropout(0.5),
        sj_layer.Linear(HIDDEN, HIDDEN),
        sj_neuron.LIFNode(**options),
        sj_layer.Dropout(0.5),
        sj_layer.Linear(HIDDEN, CLASSES),
    )
    if not has_norms:
        for name, value in theirs.state_dict().items():
            if value.dim() == 4 and name != "features.0.weight":
                value.mul_(4.0)
    assert_equal_nets(*pair(ours, theirs), noise(3, 32, 32), (sj_neuron.LIFNode,))


def test_parametric_neurons_of_a_vgg():
    """Time constants of their own, copied with the weights."""
    torch.manual_seed(0)
    ours = zoo.vgg.SpikingVGG11BN(plif, (3, 32, 32), CLASSES, width=4, grid=1, hidden=HIDDEN)
    options = their_options(init_tau=1.5)
    theirs = spiking_vgg.SpikingVGG(
        NARROW[11],
        batch_norm=True,
        norm_layer=sj_layer.BatchNorm2d,
        num_classes=CLASSES,
        spiking_neuron=sj_neuron.ParametricLIFNode,
        **options,
    )
    theirs.avgpool = sj_layer.AdaptiveAvgPool2d(1)
    theirs.classifier = torch.nn.Sequential(
        sj_layer.Linear(32, HIDDEN),
        sj_neuron.ParametricLIFNode(**options),
        sj_layer.Dropout(0.5),
        sj_layer.Linear(HIDDEN, HIDDEN),
        sj_neuron.ParametricLIFNode(**options),
        sj_layer.Dropout(0.5),
        sj_layer.Linear(HIDDEN, CLASSES),
    )
    for name, value in theirs.state_dict().items():
        if name.endswith(".w"):
            value.uniform_(0.0, 1.0)
    ours, theirs = pair(ours, theirs)
    assert len({neuron.tau.item() for neuron in ours.modules() if isinstance(neuron, nn.ParametricLIF)}) == 10
    assert_equal_nets(ours, theirs, noise(3, 32, 32), (sj_neuron.ParametricLIFNode,))


PLIF = {
    "MNISTNet": ("PLIFMNIST", (1, 28, 28), 10, {}),
    "FashionMNISTNet": ("PLIFFashionMNIST", (1, 28, 28), 10, {}),
    "NMNISTNet": ("PLIFNMNIST", (2, 34, 34), 10, {}),
    "CIFAR10Net": ("PLIFCIFAR10", (3, 32, 32), 10, {}),
    "CIFAR10DVSNet": ("PLIFCIFAR10DVS", (2, 128, 128), 10, {}),
    "DVSGestureNet": ("PLIFDVSGesture", (2, 128, 128), 11, {}),
}


@pytest.mark.parametrize("name", PLIF)
def test_plif(name):
    """With eight channels."""
    torch.manual_seed(0)
    own, shape, classes, options = PLIF[name]
    ours = getattr(zoo.plif, own)(plif, shape, classes, channels=8, **options)
    theirs = getattr(parametric, name)(
        channels=8, spiking_neuron=sj_neuron.ParametricLIFNode, **their_options(init_tau=1.5)
    )
    assert_equal_nets(*pair(ours, theirs), noise(*shape), (sj_neuron.ParametricLIFNode,))


def test_ottt_vggws():
    """Their standardisation differs from ours in the variance, which the gains make up for."""
    torch.manual_seed(0)
    ours = zoo.ottt.OTTTSpikingVGGWS(lif, (3, 32, 32), CLASSES)
    theirs = ottt.ottt_spiking_vggws(num_classes=CLASSES, spiking_neuron=sj_neuron.LIFNode, **their_options(tau=1.5))
    assert_equal_nets(*pair(ours, theirs), noise(3, 32, 32), (sj_neuron.LIFNode,), gradients=False)


@pytest.mark.parametrize("is_standardized", [False, True])
@pytest.mark.parametrize("size", [11, 13])
def test_ottt_vgg(size, is_standardized):
    """With four channels at first, and inner layers of 24, which their class does not offer."""
    torch.manual_seed(0)
    ours = getattr(zoo.ottt, f"OTTTSpikingVGG{size}{'WS' if is_standardized else ''}")
    ours = ours(lif, (3, 32, 32), CLASSES, width=4, hidden=HIDDEN)
    options = their_options(tau=1.5)
    theirs = ottt.OTTTSpikingVGG(
        NARROW[size],
        weight_standardization=is_standardized,
        num_classes=CLASSES,
        spiking_neuron=sj_neuron.LIFNode,
        light_classifier=False,
        **options,
    )
    linear = sj_layer.WSLinear if is_standardized else sj_layer.Linear
    inner = [linear(32 * 49, HIDDEN), linear(HIDDEN, HIDDEN)]
    replaced = {2: inner[0], 6: inner[1], 10: sj_layer.Linear(HIDDEN, CLASSES)}
    for index, layer in replaced.items():
        theirs.classifier[index] = layer
    for name, value in theirs.state_dict().items():
        if name.endswith("gain"):
            value.fill_(4.0)  # with gains of 1 deep layers are silent, and nothing would be compared
        elif value.dim() == 4 and name != "features.0.weight" and not is_standardized:
            value.mul_(4.0)
    assert_equal_nets(*pair(ours, theirs), noise(3, 32, 32), (sj_neuron.LIFNode,), gradients=not is_standardized)
