"""What the three families compute, and what they refuse."""

import pytest
import torch

from spikecore import create, nn
from spikecore.errors import ConversionError, OptionError, ShapeError
from spikecore_zoo_resnet.keys import renamed
from spikecore_zoo_resnet.sew import join

SMALL = {"width": 4, "stem": "small"}
FAMILIES = ("spiking_resnet18", "sew_resnet18", "ms_resnet18")


def make_neuron():
    return nn.LIF(tau=1.5, v_threshold=0.5, backend="torch")


def make(name, shape=(2, 16, 16), num_outputs=3, neuron=make_neuron, **options):
    torch.manual_seed(0)
    return create("model", name, neuron, shape, num_outputs, **{**SMALL, **options})


def rates(net, x):
    values = []
    hooks = [
        part.register_forward_hook(lambda _, __, out: values.append(out.mean().item()))
        for part in net.modules()
        if isinstance(part, nn.LIF)
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return values


@pytest.mark.parametrize(
    ("connect", "expected"),
    [("add", [0.0, 1.0, 1.0, 2.0]), ("and", [0.0, 0.0, 0.0, 1.0]), ("iand", [0.0, 1.0, 0.0, 0.0])],
)
def test_the_three_ways_to_join(connect, expected):
    """Branch 0 0 1 1, shortcut 0 1 0 1: sum, and, shortcut and not branch."""
    branch, shortcut = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    assert join(branch, shortcut, connect).tolist() == expected


@pytest.mark.parametrize("connect", ["and", "iand"])
def test_neurons_that_give_no_spikes_are_refused_where_their_outputs_are_negated(connect):
    """Of two ReLU branches `(1 - A) · S` is negative; a sum of them is an ordinary residual net."""

    def relu():
        return create("neuron", "relu")

    assert make("sew_resnet18", (2, 8, 8), neuron=relu)
    with pytest.raises(OptionError, match=f"connect = '{connect}' takes spikes.* are counts or graded"):
        make("sew_resnet18", (2, 8, 8), neuron=relu, connect=connect)


@pytest.mark.parametrize(
    ("dilated", "sizes", "dilations"),
    [
        ((False, False, False), [8, 4, 2, 1], [(1, 1), (1, 1), (1, 1), (1, 1)]),
        ((False, False, True), [8, 4, 2, 2], [(1, 1), (1, 1), (1, 1), (1, 2)]),
        ((False, True, True), [8, 4, 4, 4], [(1, 1), (1, 1), (1, 2), (2, 4)]),
        ((True, False, True), [8, 8, 4, 4], [(1, 1), (1, 2), (2, 2), (2, 4)]),
    ],
)
@pytest.mark.parametrize("name", ["spiking_resnet50", "sew_resnet50"])
def test_dilation_in_place_of_strides(name, dilated, sizes, dilations):
    """The first block of a stage has the dilation that came before, as in torchvision; weights fit both nets."""
    net = make(name, (2, 8, 8), replace_stride_with_dilation=dilated)
    net.load_state_dict(make(name, (2, 8, 8)).state_dict())
    seen = []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        stage.register_forward_hook(lambda _, __, out: seen.append(out.shape[-1]))
        assert {block.conv2.conv.padding for block in stage} == {block.conv2.conv.dilation for block in stage}
    net(torch.rand(2, 3, 2, 8, 8))
    assert seen == sizes
    stages = (net.layer1, net.layer2, net.layer3, net.layer4)
    assert [(stage[0].conv2.conv.dilation[0], stage[1].conv2.conv.dilation[0]) for stage in stages] == dilations


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_of_two_convolutions_do_not_dilate(name):
    with pytest.raises(OptionError, match="expected false three times, got .*blocks of two convolutions have none"):
        make(name, replace_stride_with_dilation=(False, True, False))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_spikes_at_first(name):
    net = make(name)
    x = torch.rand(4, 6, 2, 16, 16, generator=torch.Generator().manual_seed(1)) * 2
    assert min(rates(net, x)) > 0.01


@pytest.mark.parametrize("name", FAMILIES)
def test_the_blocks_that_are_fused(name):
    """SEW: every convolution; spiking ResNet: those that a neuron follows directly; MS-ResNet: none."""
    net = make(name)
    num_blocks = sum(isinstance(part, nn.ConvBNNeuron) for part in net.modules())
    num_neurons = sum(isinstance(part, nn.LIF) for part in net.modules())
    expected = {"sew_resnet18": (20, 20), "spiking_resnet18": (9, 17), "ms_resnet18": (0, 17)}
    assert (num_blocks, num_neurons) == expected[name]


def test_zero_init_begins_with_the_shortcut():
    """The branches of an MS-ResNet are then 0, so stages of equal size pass their input on."""
    net = make("ms_resnet18", zero_init_residual=True)
    x = torch.rand(2, 3, 4, 8, 8)
    torch.testing.assert_close(net.layer1(x), x)
    net = make("ms_resnet18")
    assert not torch.allclose(net.layer1(x), x)


@pytest.mark.parametrize("name", FAMILIES)
def test_features_and_classifier_are_the_net(name):
    net = make(name).eval()
    x = torch.rand(3, 2, 2, 16, 16)
    torch.testing.assert_close(net.classifier(net.forward_features(x)), net(x))
    assert net.forward_features(x).shape == (3, 2, 32)
    values = nn.features(net, ["classifier"])(x)
    torch.testing.assert_close(values["classifier"], net(x))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("sew_resnet18", "layer3.1.conv2"),
        ("spiking_resnet18", "layer3.1.conv2.norm"),
        ("spiking_resnet18", "layer3.1.neuron"),
        ("ms_resnet18", "layer3.1.conv2.norm"),
    ],
)
def test_layers_have_the_names_that_the_readme_gives(name, layer):
    net = make(name).eval()
    x = torch.rand(3, 2, 2, 16, 16)
    values = nn.features(net, [layer, "layer3.1.add"])(x)
    seen = {}
    for path in (layer, "layer3.1"):
        net.get_submodule(path).register_forward_hook(lambda _, __, out, path=path: seen.update({path: out}))
    net(x)
    assert torch.equal(values[layer], seen[layer])
    block = net.get_submodule("layer3.1")
    whole = block.neuron(values["layer3.1.add"]) if name == "spiking_resnet18" else values["layer3.1.add"]
    assert torch.equal(whole, seen["layer3.1"])
    with pytest.raises(KeyError, match=r"no node 'layer3': it is made of \d+ nodes"):
        nn.features(net, ["layer3"])


@pytest.mark.parametrize("name", FAMILIES)
def test_folded_norms_change_no_spike(name):
    net = make(name).double()
    x = torch.rand(4, 3, 2, 16, 16, dtype=torch.float64) * 2
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    net(x)
    net.eval()
    before = rates(net, x)
    out = net(x)
    for path, part in list(net.named_modules()):
        if isinstance(part, nn.ConvBNNeuron):
            parent, _, own = path.rpartition(".")
            setattr(net.get_submodule(parent), own, part.fold())
    assert rates(net, x) == before
    assert min(before) > 0.001
    torch.testing.assert_close(net(x), out)


def test_keys_of_torchvision():
    """All 122 keys of ResNet-18 become all 122 of ours."""
    theirs = ["conv1.weight", "fc.weight", "fc.bias"]
    norms = ["bn1"]
    for stage in range(1, 5):
        for block in range(2):
            for index in (1, 2):
                theirs.append(f"layer{stage}.{block}.conv{index}.weight")
                norms.append(f"layer{stage}.{block}.bn{index}")
    for stage in range(2, 5):
        theirs.append(f"layer{stage}.0.downsample.0.weight")
        norms.append(f"layer{stage}.0.downsample.1")
    tensors = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    theirs += [f"{norm}.{tensor}" for norm in norms for tensor in tensors]
    assert len(theirs) == 122
    for name in ("sew_resnet18", "spiking_resnet18"):
        assert {renamed(key) for key in theirs} == set(make(name).state_dict())


def test_weights_are_imported_under_the_right_names():
    """Each tensor arrives where it belongs; what an ANN does not have stays."""
    net = create(
        "model",
        "sew_resnet18",
        lambda: nn.ParametricLIF(init_tau=3.0, backend="torch"),
        (3, 32, 32),
        5,
        width=4,
    )
    generator = torch.Generator().manual_seed(5)
    theirs = {}
    for key, value in net.state_dict().items():
        if ".neuron." in key or key.endswith("num_batches_tracked"):
            continue
        name = key.replace("downsample.conv.", "downsample.0.").replace("downsample.norm.", "downsample.1.")
        for index in (1, 2):
            name = name.replace(f"conv{index}.conv.", f"conv{index}.").replace(f"conv{index}.norm.", f"bn{index}.")
        name = name.replace("classifier.", "fc.")
        theirs[name] = torch.rand(value.shape, generator=generator)
    state = net.import_weights("torchvision", theirs)
    net.load_state_dict(state)
    assert torch.equal(net.layer2[0].downsample.norm.running_var, theirs["layer2.0.downsample.1.running_var"])
    assert torch.equal(net.layer3[1].conv2.conv.weight, theirs["layer3.1.conv2.weight"])
    assert torch.equal(net.classifier.bias, theirs["fc.bias"])
    assert net.conv1.neuron.tau.item() == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("name", "theirs", "ours"),
    [
        ("sew_resnet18", "sn1.w", "conv1.neuron.param_w"),
        ("sew_resnet18", "layer1.0.sn2.w", "layer1.0.conv2.neuron.param_w"),
        ("sew_resnet18", "layer2.0.downsample_sn.w", "layer2.0.downsample.neuron.param_w"),
        ("spiking_resnet18", "layer1.0.sn1.w", "layer1.0.conv1.neuron.param_w"),
        ("spiking_resnet18", "layer1.0.sn2.w", "layer1.0.neuron.param_w"),
        ("spiking_resnet50", "layer1.0.sn2.w", "layer1.0.conv2.neuron.param_w"),
        ("spiking_resnet50", "layer1.0.sn3.w", "layer1.0.neuron.param_w"),
    ],
)
def test_time_constants_of_spikingjelly_are_read(name, theirs, ours):
    net = create("model", name, lambda: nn.ParametricLIF(backend="torch"), (3, 32, 32), 2, width=4)
    tensors = {"conv1.weight": net.conv1.conv.weight, theirs: torch.tensor(0.7)}
    state = net.import_weights("spikingjelly", tensors)
    assert state[ours].item() == pytest.approx(0.7)
    assert theirs not in state
    assert set(state) <= set(net.state_dict())


def test_other_weights_are_refused():
    with pytest.raises(ConversionError, match="sources: torchvision, spikingjelly"):
        make("sew_resnet18").import_weights("timm", {})
    with pytest.raises(ConversionError, match=r"conv1\.weight among them, got features\.0\.weight"):
        make("sew_resnet18").import_weights("torchvision", {"features.0.weight": torch.zeros(1)})
    with pytest.raises(ConversionError, match="sources: none"):
        make("ms_resnet18").import_weights("torchvision", {})


def test_bad_input():
    with pytest.raises(ShapeError, match="H, W >= 32"):
        make("sew_resnet18", (3, 31, 40), stem="imagenet")
    with pytest.raises(ShapeError, match="H, W >= 8"):
        make("sew_resnet18", (3, 7, 40))
    with pytest.raises(OptionError, match="connect"):
        make("sew_resnet18", connect="or")
    with pytest.raises(OptionError, match="at least 16"):
        make("sew_resnext50_32x4d", width=8)
