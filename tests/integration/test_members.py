"""The nets that the zoos ship do what their model cards say, on the data that they were trained for."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from spikecore import create, nn
from spikecore.errors import SpikeError
from tests.tools.members import MEMBERS, Member, evaluate, in_time, make_net, read

ROOT = Path(__file__).resolve().parents[2]
CARDS = sorted(ROOT.glob("plugins/*/src/*/weights/*/*.json"))
LARGEST_BYTES = 2 * 1024**2


def load(path):
    """The card, the recipe of the net, the net as it ships, and the test split; skipped where the data is missing."""
    card = json.loads(path.read_text())
    (member,) = [m for m in MEMBERS.values() if (m.model, m.dataset) == (card["model"], card["dataset"])]
    try:
        images, labels = read(member.dataset, "test")
    except SpikeError as error:
        pytest.skip(f"{member.dataset} is not here: {error}")
    net = make_net(member, tuple(card["input_shape"]), card["num_outputs"], weights=path.stem).eval()
    return card, member, net, images, labels


def spikes(net, x):
    """Of every neuron layer, in the order of the calls."""
    values = []
    hooks = [
        part.register_forward_hook(lambda _, __, out: values.append(out))
        for part in net.modules()
        if isinstance(part, nn.Neuron)
    ]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return values


def test_there_are_cards():
    assert len(CARDS) >= 2
    assert {path.with_suffix(".safetensors") for path in CARDS} == set(
        ROOT.glob("plugins/*/src/*/weights/*/*.safetensors")
    )


@pytest.mark.parametrize("path", CARDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_evaluation_reproduces_the_card(path):
    card, member, net, images, labels = load(path)
    file = path.with_suffix(".safetensors")
    assert file.stat().st_size <= LARGEST_BYTES
    assert hashlib.sha256(file.read_bytes()).hexdigest() == card["sha256"]
    assert sum(value.numel() for value in net.parameters()) == card["parameters"]
    result, expected = evaluate(net, member, images, labels), card["test"]
    # Sums in another order may flip a spike that stands at the threshold, and with it a sample that is near the edge.
    assert abs(result["num_right"] - expected["num_right"]) <= 1 + len(labels) // 1000
    assert result["accuracy"] >= card["accuracy_of_seeds"][0] - 0.005
    assert result["firing_rates"] == pytest.approx(expected["firing_rates"], abs=2e-3)
    assert min(result["firing_rates"].values()) > 0.0
    for name in ("synops", "macs", "energy_nj"):
        assert result[name] == pytest.approx(expected[name], rel=0.01)


@pytest.mark.parametrize("path", CARDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_card_says_what_a_sample_costs(path):
    """Horowitz 2014, 45 nm, float32: 0.9 pJ for an addition, 4.6 pJ with a multiplication."""
    test = json.loads(path.read_text())["test"]
    assert test["synops"] > 0
    assert test["energy_nj"] == pytest.approx((0.9 * test["synops"] + 4.6 * test["macs"]) / 1000, abs=0.1)


@pytest.mark.parametrize("path", CARDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_folded_norms_change_no_spike(path):
    _, member, net, images, _ = load(path)
    x = in_time(images[:32], member.phases[-1].num_steps).double()
    net = net.double()
    before = spikes(net, x)
    num_folded = 0
    for name, part in list(net.named_modules()):
        if isinstance(part, nn.ConvBNNeuron):
            parent, _, own = name.rpartition(".")
            setattr(net.get_submodule(parent), own, part.fold())
            num_folded += 1
    after = spikes(net, x)
    assert num_folded > 0
    assert len(before) == len(after)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_fused_inference_is_the_unfused_one(path):
    """The backend that runs convolution, norm and neuron in one call gives the spikes of the parts."""
    card, member, _, images, _ = load(path)
    x = in_time(images[:32], member.phases[-1].num_steps)
    nets = []
    for backend in ("cpu", "torch"):
        own = Member(member.model, member.dataset, member.options, member.phases, {**member.neuron, "backend": backend})
        nets.append(make_net(own, tuple(card["input_shape"]), card["num_outputs"], weights=path.stem).eval())
    fused, unfused = (spikes(net, x) for net in nets)
    num_different = sum(int((one != other).sum()) for one, other in zip(fused, unfused, strict=True))
    assert num_different <= 1e-5 * sum(one.numel() for one in fused)
    with torch.no_grad():
        torch.testing.assert_close(nets[0](x).mean(0), nets[1](x).mean(0), rtol=1e-3, atol=1e-3)


def test_a_name_that_does_not_ship_is_told():
    with pytest.raises(SpikeError, match="it ships digits"):
        create("model", "sew_resnet18", nn.LIF, (1, 8, 8), 10, width=8, stem="small", weights="digit")
    with pytest.raises(SpikeError, match="width: 8 there, 4 here"):
        create("model", "sew_resnet18", nn.LIF, (1, 8, 8), 10, width=4, stem="small", weights="digits")
