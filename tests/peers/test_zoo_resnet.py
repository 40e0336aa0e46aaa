"""Spiking ResNet and SEW-ResNet against spikingjelly's own modules, with weights copied through the key map."""

import pytest
import torch

from spikecore import nn
from tests.peers.compare import require
from tests.peers.zoo import assert_equal_nets, settle_quickly, their_models

zoo = pytest.importorskip("spikecore_zoo_resnet")
sj_neuron = require("spikingjelly.activation_based.neuron")
sj_surrogate = require("spikingjelly.activation_based.surrogate")
sj_functional = require("spikingjelly.activation_based.functional")
sew_resnet = their_models("sew_resnet")
spiking_resnet = their_models("spiking_resnet")

T, B, CLASSES = 3, 3, 7
DILATED = (False, True, True)
OPTIONS = {"tau": 1.5, "v_threshold": 0.4, "detach_reset": True}


def make_neuron():
    return nn.LIF(**OPTIONS, surrogate=nn.ATan(alpha=3.0), backend="torch")


def pair(ours, build, **keywords):
    """Both nets; theirs has weights and running statistics off their first values."""
    torch.manual_seed(0)
    surrogate = sj_surrogate.ATan(alpha=3.0)
    theirs = build(
        spiking_neuron=sj_neuron.LIFNode, num_classes=CLASSES, surrogate_function=surrogate, **keywords, **OPTIONS
    )
    for name, value in theirs.state_dict().items():
        if "bn" in name or "downsample.1" in name:
            if name.endswith("weight"):
                value.uniform_(0.8, 1.4)
            elif name.endswith("bias"):
                value.uniform_(-0.1, 0.4)
    settle_quickly(ours, theirs)
    sj_functional.set_step_mode(theirs, "m")
    ours.load_state_dict(ours.import_weights("spikingjelly", theirs.state_dict()))
    return ours, theirs


CASES = {
    **{
        f"sew_resnet18 {connect}": (
            lambda connect=connect: zoo.sew.SEWResNet18(make_neuron, (3, 64, 64), CLASSES, connect=connect),
            lambda connect=connect, **keywords: sew_resnet.sew_resnet18(cnf=connect.upper(), **keywords),
        )
        for connect in ("add", "and", "iand")
    },
    "sew_resnet50": (
        lambda: zoo.sew.SEWResNet50(make_neuron, (3, 64, 64), CLASSES),
        lambda **keywords: sew_resnet.sew_resnet50(cnf="ADD", **keywords),
    ),
    "sew_resnet50 dilated": (
        lambda: zoo.sew.SEWResNet50(make_neuron, (3, 64, 64), CLASSES, replace_stride_with_dilation=DILATED),
        lambda **keywords: sew_resnet.sew_resnet50(cnf="ADD", replace_stride_with_dilation=DILATED, **keywords),
    ),
    "sew_wide_resnet50_2": (
        lambda: zoo.sew.SEWWideResNet50_2(make_neuron, (3, 64, 64), CLASSES),
        lambda **keywords: sew_resnet.sew_wide_resnet50_2(cnf="ADD", **keywords),
    ),
    "spiking_resnet18": (
        lambda: zoo.spiking.SpikingResNet18(make_neuron, (3, 64, 64), CLASSES),
        lambda **keywords: spiking_resnet.spiking_resnet18(**keywords),
    ),
    "spiking_resnet50 dilated": (
        lambda: zoo.spiking.SpikingResNet50(make_neuron, (3, 64, 64), CLASSES, replace_stride_with_dilation=DILATED),
        lambda **keywords: spiking_resnet.spiking_resnet50(replace_stride_with_dilation=DILATED, **keywords),
    ),
    "spiking_resnext50_32x4d": (
        lambda: zoo.spiking.SpikingResNeXt50_32x4d(make_neuron, (3, 64, 64), CLASSES),
        lambda **keywords: spiking_resnet.spiking_resnext50_32x4d(**keywords),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_outputs_and_every_spike(name):
    build_ours, build_theirs = CASES[name]
    ours, theirs = pair(build_ours(), build_theirs)
    x = torch.rand(T, B, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2
    assert_equal_nets(ours, theirs, x, (sj_neuron.LIFNode,))


def test_parametric_neurons():
    """Time constants of their own, copied with the weights."""
    torch.manual_seed(0)
    shared = {"v_threshold": 0.4, "detach_reset": True}
    theirs = spiking_resnet.spiking_resnet18(
        spiking_neuron=sj_neuron.ParametricLIFNode,
        num_classes=CLASSES,
        surrogate_function=sj_surrogate.ATan(alpha=3.0),
        init_tau=2.0,
        **shared,
    )
    for name, value in theirs.state_dict().items():
        if name.endswith(".w"):
            value.uniform_(0.0, 1.0)

    def make_parametric():
        return nn.ParametricLIF(**shared, surrogate=nn.ATan(alpha=3.0), backend="torch")

    ours = zoo.spiking.SpikingResNet18(make_parametric, (3, 64, 64), CLASSES)
    settle_quickly(ours, theirs)
    sj_functional.set_step_mode(theirs, "m")
    ours.load_state_dict(ours.import_weights("spikingjelly", theirs.state_dict()))
    assert len({neuron.tau.item() for neuron in ours.modules() if isinstance(neuron, nn.ParametricLIF)}) == 17
    x = torch.rand(T, B, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2
    assert_equal_nets(ours, theirs, x, (sj_neuron.ParametricLIFNode,))
