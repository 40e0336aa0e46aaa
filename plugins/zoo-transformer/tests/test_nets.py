"""What the attentions compute, and what the three families refuse."""

import pytest
import torch

from spikecore import create, nn
from spikecore.errors import ConversionError, OptionError, ShapeError
from spikecore_zoo_transformer.attention import (
    QKAttention,
    SpikeDrivenAttention,
    SpikingSelfAttention,
    spread_attention,
)

SMALL = {
    "spikformer_4_384": {"depth": 1, "dim": 32, "heads": 2},
    "sdt_2_512": {"depth": 1, "dim": 32},
    "qkformer_4_384": {"depths": (1, 1, 1), "dim": 32, "heads": 2},
    "qkformer_2_256": {"dim": 32, "heads": 2},
}


def make_neuron():
    return nn.LIF(tau=1.5, v_threshold=0.4, backend="torch")


def make(name, shape=(2, 16, 16), num_outputs=3, **options):
    torch.manual_seed(0)
    return create("model", name, make_neuron, shape, num_outputs, **{**SMALL[name], **options})


def spikes(*shape, rate=0.3, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).double()


def watched(module, part, x):
    """What a part of a module takes and gives."""
    seen = {}
    hook = module.get_submodule(part).register_forward_hook(lambda _, inputs, out: seen.update(x=inputs[0], out=out))
    seen["result"] = module(x)
    hook.remove()
    return seen


def test_both_orders_of_the_products_are_the_definition():
    """Σ_m (Σ_c q[c, n] k[c, m]) v[d, m]."""
    query, key, value = (spikes(2, 3, 8, 11, seed=seed) for seed in range(3))
    expected = torch.einsum("bhcn,bhcm,bhdm->bhdn", query, key, value)
    assert expected.max() > 1
    for is_token_wise in (True, False):
        assert torch.equal(spread_attention(query, key, value, is_token_wise), expected)


def test_self_attention():
    """Heads are neighbouring channels; the factor is before the neuron."""
    torch.manual_seed(0)
    attention = SpikingSelfAttention(make_neuron, 12, heads=3, scale=0.7, num_tokens=9).double()
    x = spikes(4, 2, 12, 9)
    seen = watched(attention, "neuron", x)
    query, key, value = attention.qkv(x).reshape(4, 2, 3, 3, 4, 9).unbind(2)
    assert query.mean() > 0.02
    expected = torch.einsum("tbhcn,tbhcm,tbhdm->tbhdn", query, key, value).reshape(4, 2, 12, 9) * 0.7
    torch.testing.assert_close(seen["x"], expected)


def test_spike_driven_attention():
    """One mask for each channel, from the sum over its tokens."""
    torch.manual_seed(0)
    attention = SpikeDrivenAttention(make_neuron, 6, scale=0.5).double()
    x = spikes(4, 2, 6, 9) * 2
    seen = watched(attention, "neuron", x)
    query, key, value = attention.qkv(attention.first_neuron(x)).reshape(4, 2, 3, 6, 9).unbind(2)
    sums = torch.einsum("tbdn,tbdn->tbd", query, key).unsqueeze(-1) * 0.5
    torch.testing.assert_close(seen["x"], sums)
    assert seen["out"].any()
    torch.testing.assert_close(seen["result"], attention.proj(seen["out"] * value))


@pytest.mark.parametrize(("over", "axis"), [("tokens", 3), ("channels", 4)])
def test_qk_attention(over, axis):
    """One mask for each token of a head, or for each channel, from the number of its query spikes."""
    torch.manual_seed(0)
    attention = QKAttention(make_neuron, 8, heads=2, scale=0.3, over=over).double()
    x = spikes(4, 2, 8, 9)
    seen = watched(attention, "neuron", x)
    query, key = attention.qk(x).reshape(4, 2, 2, 2, 4, 9).unbind(2)
    torch.testing.assert_close(seen["x"], query.sum(axis, keepdim=True) * 0.3)
    assert 0 < seen["out"].mean() < 1
    torch.testing.assert_close(seen["result"], attention.proj((seen["out"] * key).reshape(4, 2, 8, 9)))


@pytest.mark.parametrize("name", SMALL)
def test_features_and_classifier_are_the_net(name):
    net = make(name).eval()
    x = torch.rand(3, 2, 2, 16, 16)
    torch.testing.assert_close(net.classifier(net.forward_features(x)), net(x))
    torch.testing.assert_close(nn.features(net, ["classifier"])(x)["classifier"], net(x))


def test_pooling_before_or_after_the_neuron():
    x = torch.rand(3, 2, 2, 16, 16) * 2
    nets = [make("spikformer_4_384", pool_first=first).train() for first in (False, True)]
    assert not torch.equal(nets[0](x), nets[1](x))
    assert sum(isinstance(part, nn.ConvBNNeuron) for part in nets[0].modules()) == 9
    assert sum(isinstance(part, nn.ConvBNNeuron) for part in nets[1].modules()) == 7


@pytest.mark.parametrize("over", ["tokens", "channels"])
def test_default_factors_are_those_of_half_the_threshold(over):
    """The authors' attention neurons have half the threshold and no factor (self-attention 0.125): the same spikes."""
    net = make("qkformer_4_384", mask_over=over, attention_scale=0.25, mask_scale=2.0).double()
    x = torch.rand(4, 3, 2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2
    ours = net(x)
    for part in net.modules():
        if isinstance(part, QKAttention | SpikingSelfAttention):
            part.scale /= 2
            part.neuron = nn.LIF(tau=1.5, v_threshold=0.2, backend="torch")
    assert torch.equal(net(x), ours)
    for part in net.modules():
        if isinstance(part, QKAttention):
            part.scale *= 0.001
    assert not torch.equal(net(x), ours)


def test_patches_of_small_images():
    """The first patches have one convolution, and the others pool behind their second one."""
    net = make("qkformer_4_384")
    first, second = net.stages[0].patches.convs, net.stages[1].patches.convs
    assert [type(part).__name__ for part in first] == ["PooledConv"]
    assert [type(part).__name__ for part in second] == ["ConvBNNeuron", "PooledConv"]
    net = make("qkformer_4_384", small_patches=False)
    assert [type(part).__name__ for part in net.stages[1].patches.convs] == ["PooledConv", "ConvBNNeuron"]


@pytest.mark.parametrize("size", [16, 33, 50])
def test_tokens_of_event_nets(size):
    """A token is 8 pixels wide in the first stage and 16 in the second, the last one maybe less."""
    net = make("qkformer_2_256", (2, size, size)).eval()
    grids = []
    for stage in net.stages:
        stage.patches.register_forward_hook(lambda _, __, out: grids.append(out.shape[-1]))
    x = spikes(3, 2, 2, size, size).float()
    assert net(x).shape == (3, 2, 3)
    assert grids == [-(-size // 8), -(-size // 16)]
    assert net.stages[1].patches(net.stages[0](net.stem(x))).max() > 1  # both ways of the patches fire


def test_other_weights_are_refused():
    net = make("spikformer_4_384")
    with pytest.raises(ConversionError, match="sources: spikingjelly"):
        net.import_weights("timm", {})
    with pytest.raises(ConversionError, match="pool_first=True"):
        net.import_weights("spikingjelly", {})
    with pytest.raises(ConversionError, match=r"patch_embed among them, got head\.bias"):
        make("spikformer_4_384", pool_first=True).import_weights("spikingjelly", {"head.bias": torch.zeros(3)})


def test_bad_input():
    with pytest.raises(OptionError, match="divisor of dim = 32, got 5"):
        make("spikformer_4_384", heads=5)
    with pytest.raises(OptionError, match="multiple of 8"):
        make("sdt_2_512", dim=20)
    with pytest.raises(OptionError, match="divisor of dim / 4 = 8, got 3"):
        make("qkformer_4_384", heads=3)
    with pytest.raises(OptionError, match="divisor of dim / 2 = 16, got 3"):
        make("qkformer_2_256", heads=3)
    with pytest.raises(ShapeError, match="H, W >= 16"):
        make("qkformer_2_256", (2, 15, 32))
    with pytest.raises(ShapeError, match="H, W >= 8"):
        make("spikformer_4_384", (2, 7, 9), patch_size=8)
