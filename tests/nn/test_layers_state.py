"""Dropout with a constant mask, and the recurrent containers: the layers that keep state."""

import pytest
import torch
from torch import nn

from spikecore.errors import OptionError, ShapeError, StateShapeError
from spikecore.nn import LIF, functional, get_state, layers, reset_state, set_state, set_step_mode, streaming

SHAPES = {"Dropout": (6, 40), "Dropout1d": (40, 5), "Dropout2d": (40, 3, 5), "Dropout3d": (40, 2, 3, 2)}


@pytest.mark.parametrize(("name", "shape"), SHAPES.items())
class TestDropout:
    def test_the_mask_is_constant_in_time_and_fresh_per_sequence(self, name, shape):
        drop, x = getattr(layers, name)(0.4), torch.ones(7, 8, *shape)
        first, second = drop(x), drop(x)
        assert all(torch.equal(step, first[0]) for step in first)
        assert not torch.equal(first, second)
        torch.testing.assert_close(first.unique(), torch.tensor([0.0, 1 / 0.6]))
        if name != "Dropout":
            assert (first.flatten(3) == first.flatten(3)[..., :1]).all()
        else:
            assert (first[0] != first[0][..., :1]).any()

    def test_the_share_dropped_is_p(self, name, shape):
        torch.manual_seed(0)
        drop = getattr(layers, name)(0.3)
        x = torch.ones(1, 4000, *shape)
        kept = (drop(x)[0].flatten(2)[..., 0] != 0).double()  # one draw of each channel is enough
        assert abs(kept.mean() - 0.7) < 6 * (0.21 / kept.numel()) ** 0.5
        assert abs(float(drop(x).mean()) - 1) < 0.02

    def test_a_single_step_keeps_the_mask_until_reset(self, name, shape):
        drop, x = getattr(layers, name)(0.5, step_mode="single"), torch.ones(3, *shape)
        first = drop(x)
        before = torch.get_rng_state()
        assert torch.equal(drop(2 * x), 2 * first)
        assert torch.equal(torch.get_rng_state(), before)
        reset_state(drop)
        assert not torch.equal(drop(x), first)
        with pytest.raises(StateShapeError, match=r"\(3, .*\(2, .*reset_state"):
            drop(x[:2])

    def test_streaming_keeps_the_mask_between_chunks(self, name, shape):
        drop, x = getattr(layers, name)(0.5), torch.ones(4, 3, *shape)
        with streaming(drop):
            first = drop(x[:2])
            assert torch.equal(drop(x[2:]), first)
            state = get_state(drop)
        with streaming(drop):
            set_state(drop, state)
            assert torch.equal(drop(x[:2]), first)
        assert get_state(drop) == {"": None}
        assert not drop.state_dict()

    def test_eval_passes_through(self, name, shape):
        drop, x = getattr(layers, name)(0.5).eval(), torch.randn(2, 3, *shape)
        before = torch.get_rng_state()
        assert drop(x) is x
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_functional_form_in_eval_mode(self, name, shape):
        drop, x = getattr(layers, name)(0.4).eval(), torch.randn(3, 2, *shape)
        step, init_state = functional(drop)
        state = init_state(x)
        out, after = step({}, x, state)
        assert torch.equal(out, x)
        assert torch.equal(after[""]["mask"], state[""]["mask"])
        assert get_state(drop) == {"": None}

    @pytest.mark.parametrize("p", [0.0, 1.0])
    def test_the_ends(self, name, shape, p):
        x = torch.randn(2, 3, *shape)
        assert torch.equal(getattr(layers, name)(p)(x), x * (1 - p))

    def test_no_steps_and_gradients(self, name, shape):
        drop = getattr(layers, name)(0.5)
        assert drop(torch.ones(0, 3, *shape)).shape == (0, 3, *shape)
        assert drop(torch.ones(3, 0, *shape)).shape == (3, 0, *shape)
        x = torch.ones(3, 2, *shape, dtype=torch.float16, requires_grad=True)
        out = drop(x)
        assert out.dtype == torch.float16
        out.sum().backward()
        assert torch.equal(x.grad, out)


def test_dropout_faults():
    with pytest.raises(OptionError, match=r"p must be >= 0 and <= 1, got 1\.5"):
        layers.Dropout(1.5)
    with pytest.raises(ShapeError, match=r"'multi' takes \[T, B, \.\.\.\] with 5 axes, got \(2, 3, 4, 4\)"):
        layers.Dropout2d()(torch.ones(2, 3, 4, 4))
    with pytest.raises(ShapeError, match=r"\[T, B, \.\.\.\], got \(2,\)"):
        layers.Dropout()(torch.ones(2))


def lif_by_hand(current, v, tau=2.0):
    h = v + (current - v) / tau
    s = (h >= 1).to(h)
    return s, (1 - s) * h


def elementwise_by_hand(x, weight, bias):
    y, v, outs = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
    for current in x:
        y, v = lif_by_hand(nn.functional.linear(2 * current - y, weight, bias), v)
        outs.append(y)
    return torch.stack(outs)


def linear_by_hand(x, weight, bias, inner):
    y, v, outs = torch.zeros(x.shape[1], inner.shape[0], dtype=x.dtype), 0.0, []
    for current in x:
        drive = torch.cat([current, y], 1) @ weight.T + bias
        y, v = lif_by_hand(drive @ inner.T, v)
        outs.append(y)
    return torch.stack(outs)


def make_elementwise():
    torch.manual_seed(1)
    inner = nn.Sequential(layers.Linear(5, 5), LIF())
    return layers.ElementwiseRecurrent(inner, lambda x, y: 2 * x - y).double()


def make_linear():
    torch.manual_seed(2)
    inner = nn.Sequential(layers.Linear(5, 3, bias=False), LIF())
    net = layers.LinearRecurrent(inner, 5, 3).double()
    nn.init.normal_(net.linear.weight)
    nn.init.normal_(inner[0].weight)
    return net


def expected_of(net, x):
    inner = net.module[0]
    if isinstance(net, layers.ElementwiseRecurrent):
        return elementwise_by_hand(x, inner.weight, inner.bias)
    return linear_by_hand(x, net.linear.weight, net.linear.bias, inner.weight)


@pytest.mark.parametrize("make", [make_elementwise, make_linear])
class TestRecurrent:
    x = 3 * torch.randn(9, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def test_is_the_loop_by_hand(self, make):
        net = make()
        out, expected = net(self.x), expected_of(net, self.x)
        assert 0.05 < out.mean() < 0.95
        assert torch.equal(out, expected)
        assert torch.equal(net(self.x), out)  # nothing is left behind
        assert set(get_state(net).values()) == {None}

    def test_single_steps_and_chunks_equal_the_whole(self, make):
        net = make()
        whole = net(self.x)
        with streaming(net):
            chunks = [net(chunk) for chunk in self.x.split([1, 5, 3])]
        assert torch.equal(torch.cat(chunks), whole)
        set_step_mode(net, "single")
        assert torch.equal(torch.stack([net(step) for step in self.x]), whole)
        reset_state(net)
        assert torch.equal(net(self.x[0]), whole[0])

    def test_a_batch_of_one_is_a_slice(self, make):
        net = make()
        assert torch.equal(net(self.x[:, 1:2]), net(self.x)[:, 1:2])

    def test_gradients_flow_through_the_feedback(self, make):
        net, x = make(), self.x.clone().requires_grad_()
        net(x)[-1].sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())
        assert x.grad[0].abs().sum() > 0

    def test_no_steps(self, make):
        net = make()
        assert net(self.x[:0]).shape == (0, 4, net(self.x).shape[-1])

    def test_state_of_another_batch_is_refused(self, make):
        net = make()
        set_step_mode(net, "single")
        net(self.x[0])
        with pytest.raises(StateShapeError, match="'y'"):
            net(self.x[0, :2])

    def test_copies_do_not_share_state(self, make):
        net = layers.ElementwiseRecurrent(make(), torch.add) if make is make_elementwise else make()
        assert net(self.x).shape[:2] == self.x.shape[:2]  # containers nest


def test_recurrent_faults():
    with pytest.raises(ShapeError, match=r"expected \(4, 5\) from Linear, got \(4, 2\)"):
        layers.ElementwiseRecurrent(layers.Linear(5, 2))(torch.zeros(3, 4, 5))
    with pytest.raises(ShapeError, match=r"takes \[\.\.\., 6\], got \(4, 5\)"):
        layers.LinearRecurrent(nn.Identity(), 6, 6)(torch.zeros(3, 4, 5))
    with pytest.raises(ShapeError, match=r"\[T, B, \.\.\.\], got \(3,\)"):
        layers.ElementwiseRecurrent(nn.Identity())(torch.zeros(3))
    with pytest.raises(OptionError, match="'single' or 'multi'"):
        layers.ElementwiseRecurrent(nn.Identity(), step_mode="m")


def test_a_recurrent_net_streams_after_an_error():
    net = layers.ElementwiseRecurrent(nn.Sequential(layers.Linear(5, 5), LIF()))
    with pytest.raises(RuntimeError):
        net(torch.zeros(3, 4, 6))
    assert net(torch.zeros(3, 4, 5)).shape == (3, 4, 5)
