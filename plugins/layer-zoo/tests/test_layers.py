"""Attention, drop-connect and spiking recurrent nets, against definitions written anew."""

import itertools

import pytest
import torch

from spikecore import nn
from spikecore.errors import OptionError, ShapeError
from spikecore_layer_zoo import (
    DropConnectLinear,
    MultiDimensionalAttention,
    SpikingGRU,
    SpikingLSTM,
    SpikingVanillaRNN,
    TemporalWiseAttention,
)

RNNS = [SpikingLSTM, SpikingGRU, SpikingVanillaRNN]


def test_temporal_attention_scales_each_step():
    layer = TemporalWiseAttention(4, reduction=2)
    x = torch.randn(4, 3, 5, 2, 2)
    w1, w2 = layer.squeeze.inner.weight, layer.squeeze.outer.weight
    for b in range(3):
        mean = torch.stack([x[t, b].mean() for t in range(4)])
        most = torch.stack([x[t, b].max() for t in range(4)])
        weights = torch.sigmoid(w2 @ torch.relu(w1 @ mean) + w2 @ torch.relu(w1 @ most))
        torch.testing.assert_close(layer(x)[:, b], x[:, b] * weights.view(4, 1, 1, 1))
    assert layer(torch.randn(4, 3, 7)).shape == (4, 3, 7)
    with pytest.raises(ShapeError, match="num_steps=4"):
        layer(x[:3])
    with pytest.raises(OptionError, match="reduction must be >= 1 and <= 4"):
        TemporalWiseAttention(4, reduction=5)


def test_multi_dimensional_attention_is_time_then_channel_then_place():
    layer = MultiDimensionalAttention(4, 6, 2, 3, kernel_size=1)
    x = torch.randn(4, 2, 6, 3, 3)
    y = layer.temporal(x)
    w1, w2 = layer.channel.inner.weight, layer.channel.outer.weight
    for b in range(2):
        mean, most = y[:, b].mean((0, 2, 3)), y[:, b].amax((0, 2, 3))
        weights = torch.sigmoid(w2 @ torch.relu(w1 @ mean) + w2 @ torch.relu(w1 @ most))
        z = y[:, b] * weights.view(1, 6, 1, 1)
        k_mean, k_most = layer.place.weight.flatten()
        place = torch.sigmoid(k_mean * z.mean((0, 1)) + k_most * z.amax((0, 1)))
        torch.testing.assert_close(layer(x)[:, b], torch.relu(z * place))
    off = MultiDimensionalAttention(4, 6, 2, 3, use_temporal=False, use_channel=False, use_spatial=False)
    assert torch.equal(off(x), x.relu())
    with pytest.raises(OptionError, match="odd"):
        MultiDimensionalAttention(4, 6, 2, 3, kernel_size=2)
    with pytest.raises(ShapeError, match="takes \\[4, B, 6, H, W\\]"):
        layer(x[:, :, :5])


def test_drop_connect_drops_weights_with_its_probability():
    torch.manual_seed(0)
    layer = DropConnectLinear(3, 2, bias=False, p=0.3)
    torch.nn.init.constant_(layer.linear.weight, 1.0)
    out = layer(torch.eye(3)[:1].expand(1, 20000, 3))
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert out.mean().item() == pytest.approx(0.7, abs=0.02)


def test_an_invariant_mask_stays_for_the_sequence_and_another_does_not():
    x = torch.ones(6, 4, 10)
    stays = DropConnectLinear(10, 5, invariant=True)(x)
    assert torch.equal(stays, stays[:1].expand_as(stays))
    assert not torch.equal(DropConnectLinear(10, 5)(x)[0], DropConnectLinear(10, 5)(x)[1])
    layer = DropConnectLinear(10, 5, invariant=True, step_mode="single")
    assert torch.equal(layer(x[0]), layer(x[0]))
    before = layer(x[0])
    nn.reset_state(layer)
    assert not torch.equal(layer(x[0]), before)


def test_in_evaluation_it_is_the_expectation():
    torch.manual_seed(0)
    layer = DropConnectLinear(6, 3, p=0.4, num_samples=4000, activation=torch.nn.ReLU())
    x = torch.randn(1, 1, 6)
    draws = layer.train()(x.expand(1, 20000, 6)).mean(1)
    assert (layer.eval()(x)[0] - draws).abs().max() < 0.05
    linear = DropConnectLinear(6, 3, p=0.0, num_samples=1).eval()
    torch.testing.assert_close(linear(x), linear.linear(x))


@pytest.mark.parametrize("cls", RNNS)
def test_one_layer_follows_its_equations(cls):
    torch.manual_seed(1)
    net = cls(3, 4, second=nn.ATan() if cls is not SpikingVanillaRNN else None)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    cell, x = net.cells[0], torch.randn(6, 2, 3)
    h = c = torch.zeros(2, 4)
    wanted = []
    for step in x:
        a, r = step @ cell.linear_ih.weight.T + cell.linear_ih.bias, h @ cell.linear_hh.weight.T + cell.linear_hh.bias
        if cls is SpikingLSTM:
            i, f, g, o = ((a + r) >= 0).float().chunk(4, -1)
            c = torch.minimum(f * c + i * g, torch.ones(()))
            h = o * c
        elif cls is SpikingGRU:
            (a_r, a_z, a_n), (r_r, r_z, r_n) = a.chunk(3, -1), r.chunk(3, -1)
            reset, z = (a_r + r_r >= 0).float(), (a_z + r_z >= 0).float()
            h = (1 - z) * (a_n + reset * r_n >= 0).float() + z * h
        else:
            h = (a + r >= 0).float()
        wanted.append(h)
    assert torch.equal(net(x), torch.stack(wanted))
    assert 0 < torch.stack(wanted).mean() < 1


@pytest.mark.parametrize(("cls", "layers"), list(itertools.product(RNNS, [1, 3])))
def test_streams_and_trains(cls, layers):
    torch.manual_seed(0)
    net = cls(3, 5, num_layers=layers)
    x = torch.randn(7, 2, 3)
    whole = net(x)
    with nn.streaming(net):
        assert torch.equal(torch.cat([net(x[:3]), net(x[3:])]), whole)
    nn.set_step_mode(net, "single")
    assert torch.equal(torch.stack([net(step) for step in x]), whole)
    nn.set_step_mode(net, "multi")
    net(x).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    with pytest.raises(ShapeError, match="input_size=3"):
        net(torch.zeros(7, 2, 4))
    assert net(torch.zeros(0, 2, 3)).shape == (0, 2, 5)


@pytest.mark.parametrize("cls", RNNS)
def test_the_second_direction_reads_backwards(cls):
    net = cls(3, 4, num_layers=2, bidirectional=True)
    x = torch.randn(5, 2, 3)
    out = net(x)
    assert out.shape == (5, 2, 8)
    net.backward_cells.load_state_dict(net.cells.state_dict())
    one = cls(3, 4, bidirectional=True)
    one.backward_cells.load_state_dict(one.cells.state_dict())
    forward, backward = one(x).chunk(2, -1)
    assert torch.equal(one(x.flip(0)).chunk(2, -1)[0], backward.flip(0))
    assert torch.equal(one(x.flip(0)).chunk(2, -1)[1], forward.flip(0))
    with nn.streaming(net), pytest.raises(ShapeError, match="bidirectional"):
        net(x)


@pytest.mark.parametrize("cls", RNNS)
def test_a_dropout_that_stays_stays_between_calls(cls):
    torch.manual_seed(0)
    net = cls(3, 32, num_layers=2, dropout=0.5, invariant_dropout=True)
    below, seen = [], []
    net.cells[0].register_forward_hook(lambda cell, args, out: below.append(out[0]))
    net.cells[1].register_forward_pre_hook(lambda cell, args: seen.append(args[0]))
    x = torch.randn(8, 2, 3) * 3

    def same_mask():
        """Whether no unit is dropped in one step and passed on in another."""
        on, passed = torch.stack(below) != 0, torch.stack(seen) != 0
        below.clear(), seen.clear()
        assert 0 < passed.sum() < on.sum()
        return not ((on & ~passed).any(0) & passed.any(0)).any()

    net(x)
    assert same_mask()
    with nn.streaming(net):
        net(x[:3]), net(x[3:])
    assert same_mask()
    nn.set_step_mode(net, "single")
    for step in x:
        net(step)
    assert same_mask()


def test_dropout_between_layers_stays_or_changes():
    class Echo(SpikingVanillaRNN):
        """Passes its input on, so that the dropout is what is seen."""

    net = Echo(4, 4, num_layers=2, dropout=0.5, invariant_dropout=True)
    x = torch.ones(8, 1, 4)
    masks = net.initial_state(x[0])["masks"]
    assert masks.shape == (1, 1, 4)
    assert torch.equal(net._dropped(x, masks[0]), masks.expand_as(x))
    assert set(masks.unique().tolist()) <= {0.0, 2.0}
    net.invariant_dropout = False
    assert "masks" not in net.initial_state(x[0])
    torch.manual_seed(0)
    assert not torch.equal(net._dropped(x), net._dropped(x)[:1].expand_as(x))
    assert net.eval()._dropped(x) is x
    with pytest.raises(OptionError, match="dropout must be"):
        SpikingGRU(2, 2, dropout=1.5)
