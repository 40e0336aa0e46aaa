"""What the plain nets compute, whose weights they read, and what they refuse."""

import pytest
import torch

from spikecore import create, nn
from spikecore.errors import ConversionError, OptionError, ShapeError
from spikecore_zoo_vgg.ottt import SCALE
from spikecore_zoo_vgg.plif import Vote

SMALL = {
    "spiking_vgg11": ({"width": 4, "grid": 1, "hidden": 32}, (2, 32, 32)),
    "spiking_vgg11_bn": ({"width": 4, "grid": 1, "hidden": 32}, (2, 32, 32)),
    "vgg_cifar10_dvs": ({"width": 4}, (2, 16, 16)),
    "ottt_spiking_vggws": ({"width": 4, "gain": 3.0}, (2, 16, 16)),
    "ottt_spiking_vgg11": ({"width": 4, "grid": 1, "hidden": 32}, (2, 32, 32)),
    "ottt_spiking_vgg11_ws": ({"width": 4, "grid": 1, "hidden": 32, "gain": 3.0}, (2, 32, 32)),
    "plif_mnist": ({"channels": 6, "hidden": 24, "votes": 2}, (2, 16, 16)),
    "plif_cifar10": ({"channels": 6, "hidden": 24, "votes": 2}, (2, 16, 16)),
}


def make_neuron():
    return nn.LIF(tau=1.5, v_threshold=0.5, backend="torch")


def make(name, **options):
    torch.manual_seed(0)
    small, shape = SMALL[name]
    return create("model", name, make_neuron, shape, 3, **{**small, **options})


def noise(name):
    return torch.rand(4, 5, *SMALL[name][1], generator=torch.Generator().manual_seed(1)) * 3


def rates(net, x):
    values = []
    neurons = [part for part in net.modules() if isinstance(part, nn.LIF)]
    hooks = [part.register_forward_hook(lambda _, __, out: values.append(out.mean().item())) for part in neurons]
    net(x)
    for hook in hooks:
        hook.remove()
    return values


@pytest.mark.parametrize("name", SMALL)
def test_every_layer_spikes_at_first(name):
    assert min(rates(make(name), noise(name))) > 0.005


def test_the_first_gain_lets_every_layer_fire():
    """With the default neuron and images of mean 0 and variance 1; the paper's gain of 1 leaves deep layers silent."""
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).expand(6, 2, 3, 16, 16)
    for options, is_silent in (({}, False), ({"gain": 1.0}, True)):
        torch.manual_seed(0)
        make_default = lambda: nn.LIF(backend="torch")  # noqa: E731
        net = create("model", "ottt_spiking_vggws", make_default, (3, 16, 16), 3, width=16, **options)
        assert (min(rates(net, x)) < 0.001) is is_silent


@pytest.mark.parametrize(("depth", "width"), [(11, 32), (13, 16), (16, 4), (19, 16)])
def test_plain_weights_let_every_layer_fire_however_deep_and_wide(depth, width):
    """With the default neuron, a picture with values from 0 to 1, and four steps."""
    torch.manual_seed(0)
    make_default = lambda: nn.LIF(backend="torch")  # noqa: E731
    net = create("model", f"ottt_spiking_vgg{depth}", make_default, (3, 32, 32), 5, width=width, grid=1, hidden=32)
    assert min(rates(net.eval(), torch.rand(4, 3, 32, 32).expand(4, 4, 3, 32, 32))) > 0.005


@pytest.mark.parametrize("name", SMALL)
def test_features_and_classifier_are_the_net(name):
    net, x = make(name).eval(), noise(name)
    torch.testing.assert_close(net.classifier(net.forward_features(x)), net(x))
    last = nn.trace_net(net).nodes[-1].name
    torch.testing.assert_close(nn.features(net, [last])(x)[last], net(x))


def test_vote():
    """Neurons of a class stand side by side."""
    spikes = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    assert Vote(2)(spikes).tolist() == [0.5, 1.0, 0.0]
    assert Vote(3)(spikes).tolist() == pytest.approx([2 / 3, 1 / 3])


def test_the_scale_of_standardised_blocks():
    net, x = make("ottt_spiking_vggws"), noise("ottt_spiking_vggws")
    out = net.features[0](x)
    assert out.unique().tolist() == pytest.approx([0.0, SCALE])


def their_names(net):
    """Their name of each tensor of ours, for the VGG that torchvision and SpikingJelly number alike."""
    names, number = {}, 0
    for block in net.features:
        if isinstance(block, nn.ConvBNNeuron):
            names[block.conv] = f"features.{number}"
            if net.has_norms:
                names[block.norm] = f"features.{number + 1}"
            number += 3 if net.has_norms else 2
        else:
            number += 1
    return names


@pytest.mark.parametrize(("name", "second"), [("spiking_vgg11", 3), ("spiking_vgg11_bn", 4)])
def test_weights_arrive_where_they_belong(name, second):
    """The second convolution is torchvision's `features.3` without norms and `features.4` with them."""
    net = make(name)
    generator = torch.Generator().manual_seed(3)
    theirs = {}
    for module, prefix in their_names(net).items():
        for key, value in module.state_dict().items():
            theirs[f"{prefix}.{key}"] = torch.rand(value.shape, generator=generator).to(value.dtype)
    for key, value in net.classifier.state_dict().items():
        theirs[f"classifier.{key}"] = torch.rand(value.shape, generator=generator)
    assert f"features.{second}.weight" in theirs
    net.load_state_dict(net.import_weights("torchvision", theirs))
    assert torch.equal(net.features[2].conv.weight, theirs[f"features.{second}.weight"])
    assert torch.equal(net.classifier[6].bias, theirs["classifier.6.bias"])


def test_gains_make_up_for_the_other_variance():
    """ŵ is then the one that divides by the sample variance."""
    net = make("ottt_spiking_vggws").double()
    generator = torch.Generator().manual_seed(3)
    conv = net.features[0].conv
    weight = torch.randn(conv.weight.shape, generator=generator, dtype=torch.float64) * 0.02
    gain = torch.rand(conv.gain.shape, generator=generator, dtype=torch.float64) + 1.0
    state = net.import_weights("spikingjelly", {"features.0.weight": weight, "features.0.gain": gain})
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.gain.copy_(state["features.0.conv.gain"])
    fan_in = weight[0].numel()
    variance, mean = torch.var_mean(weight, (1, 2, 3), correction=1, keepdim=True)
    expected = gain * (weight - mean) / torch.sqrt(fan_in * variance + conv.eps)
    torch.testing.assert_close(conv.standardised_weight(), expected)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        # our neuron → theirs: behind convolution, norm if any, and in front of a factor if any
        ("spiking_vgg11", {"features.2.neuron": "features.4", "classifier.4": "classifier.4"}),
        ("spiking_vgg11_bn", {"features.2.neuron": "features.6", "classifier.1": "classifier.1"}),
        ("ottt_spiking_vggws", {"features.1.neuron": "features.4", "features.3.neuron": "features.8"}),
        ("ottt_spiking_vgg11", {"features.2.neuron": "features.4", "classifier.1": "classifier.3"}),
        ("ottt_spiking_vgg11_ws", {"features.2.neuron": "features.5", "classifier.5": "classifier.7"}),
    ],
)
def test_time_constants_in_chains_of_spikingjelly_are_read(name, theirs):
    options, shape = SMALL[name]
    net = create("model", name, lambda: nn.ParametricLIF(backend="torch"), shape, 3, **options)
    tensors = {"features.0.weight": net.features[0].conv.weight}
    tensors.update({f"{other}.w": torch.tensor(0.5 + index) for index, other in enumerate(theirs.values())})
    state = net.import_weights("spikingjelly", tensors)
    assert [state[f"{own}.param_w"].item() for own in theirs] == [0.5 + index for index in range(len(theirs))]
    assert set(state) <= set(net.state_dict())


def test_time_constants_of_spikingjelly_are_read():
    net = create(
        "model", "plif_mnist", lambda: nn.ParametricLIF(backend="torch"), (1, 8, 8), 2, channels=4, hidden=8, votes=2
    )
    theirs = {"conv_fc.0.weight": net.features[0].conv.weight, "conv_fc.2.w": torch.tensor(0.7)}
    state = net.import_weights("spikingjelly", theirs)
    assert state["features.0.neuron.param_w"].item() == pytest.approx(0.7)
    assert state["classifier.5.param_w"] == net.classifier[5].param_w


def test_other_weights_are_refused():
    with pytest.raises(ConversionError, match="sources: spikingjelly"):
        make("plif_mnist").import_weights("torchvision", {})
    with pytest.raises(ConversionError, match=r"features\.0\.weight among them, got conv1\.weight"):
        make("spiking_vgg11").import_weights("torchvision", {"conv1.weight": torch.zeros(1)})


def test_bad_input():
    with pytest.raises(ShapeError, match="H, W >= 32"):
        create("model", "spiking_vgg11", make_neuron, (3, 31, 40), 3, width=4)
    with pytest.raises(ShapeError, match="H, W >= 32"):
        create("model", "plif_dvs_gesture", make_neuron, (2, 16, 40), 3, channels=4)
    with pytest.raises(OptionError, match="dropout"):
        make("plif_mnist", dropout=1.0)
