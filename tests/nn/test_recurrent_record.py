"""What neurons record inside recurrent containers: the whole sequence, in the graph."""

import pytest
import torch
from torch import nn as torch_nn

from spikecore.analysis import Monitor
from spikecore.nn import (
    LIF,
    CubaLIF,
    ElementwiseRecurrent,
    LinearRecurrent,
    functional,
    reset_state,
    set_step_mode,
    streaming,
)


def by_hand(net, x):
    """The loop of `LinearRecurrent(LIF(tau=1.5), 6, 6)`, in plain torch: spikes and potentials."""
    v, y = torch.zeros(x.shape[1:]), torch.zeros(x.shape[1:])
    outs, potentials = [], []
    for current in x:
        drive = net.linear(torch.cat([current, y], -1))
        h = v + (drive - v) / 1.5
        y = net.module.config.surrogate(h - 1.0)
        v = (1 - y) * h
        outs.append(y)
        potentials.append(v)
    return torch.stack(outs), torch.stack(potentials)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return LinearRecurrent(LIF(tau=1.5, record=("v",), backend="torch"), 6, 6)


@pytest.fixture
def x():
    return torch.rand(8, 4, 6, generator=torch.Generator().manual_seed(2)) * 6


def test_the_whole_sequence_with_its_gradient(net, x):
    spikes, v = by_hand(net, x)
    assert 0.05 < spikes.mean() < 0.95
    assert torch.equal(net(x), spikes)
    recorded = net.module.recorded["v"]
    torch.testing.assert_close(recorded, v)
    weight = torch.arange(1.0, 9.0).reshape(8, 1, 1)
    (given,) = torch.autograd.grad((recorded * weight).sum(), net.linear.weight)
    (want,) = torch.autograd.grad((v * weight).sum(), net.linear.weight)
    torch.testing.assert_close(given, want)
    assert want.any()


def test_of_one_call_only_and_of_chunks_in_streaming(net, x):
    _, v = by_hand(net, x)
    with streaming(net):
        for chunk, part in ((x[:3], v[:3]), (x[3:], v[3:])):
            net(chunk)
            torch.testing.assert_close(net.module.recorded["v"], part)
    net(x[:2])
    assert net.module.recorded["v"].shape == (2, 4, 6)
    net(x[:0])
    assert net.module.recorded == {}


def test_single_steps_record_one_step(net, x):
    _, v = by_hand(net, x)
    set_step_mode(net, "single")
    for current, part in zip(x, v, strict=True):
        net(current)
        torch.testing.assert_close(net.module.recorded["v"], part.unsqueeze(0))
    reset_state(net)


def test_containers_in_containers_and_neurons_outside():
    torch.manual_seed(1)
    inner, outer = CubaLIF(record=("v", "current")), LIF(record=("v",))
    body = torch_nn.Sequential(torch_nn.Linear(6, 6), ElementwiseRecurrent(inner))
    net, x = torch_nn.Sequential(ElementwiseRecurrent(body), outer), torch.rand(5, 2, 6)
    net(x)
    assert inner.recorded["v"].shape == inner.recorded["current"].shape == outer.recorded["v"].shape == (5, 2, 6)
    # The current sums what the neuron was given: the last step tells of all the others.
    drive = []
    inner.register_forward_pre_hook(lambda module, args: drive.append(args[0]))
    net(x)
    current = torch.zeros(2, 6)
    for step, seen in zip(drive, inner.recorded["current"], strict=True):
        current = 0.5 * current + step[0]
        torch.testing.assert_close(seen, current)


def test_functional_leaves_the_record_alone(net, x):
    step, init_state = functional(net)
    net(x)
    before = net.module.recorded["v"]
    step(dict(net.named_parameters()), x * 0.5, init_state(x))
    assert net.module.recorded["v"] is before


def test_a_loop_that_breaks_leaves_nothing_behind(net, x):
    def fail(module, args):
        raise ValueError("at the third step")

    net(x)
    calls = []
    handle = net.module.register_forward_pre_hook(
        lambda module, args: fail(module, args) if len(calls) == 2 else calls.append(1)
    )
    with pytest.raises(ValueError, match="third"):
        net(x)
    handle.remove()
    net.module(x)
    assert net.module.recorded["v"].shape == (8, 4, 6)


@pytest.mark.parametrize("keep", [3, None])
def test_a_monitor_has_one_record_for_each_call(net, x, keep):
    spikes, v = by_hand(net, x)
    layers = {"where": LIF, "keep": keep}
    with (
        Monitor(net, "output", **layers) as outs,
        Monitor(net, "input", **layers) as ins,
        Monitor(net, "attribute", attribute="recorded.v", **layers) as potentials,
        Monitor(net, "output", every=2, **layers) as others,
    ):
        for _ in range(3):
            net(x)
        assert len(outs["module"]) == len(ins["module"]) == len(potentials["module"]) == 3
        assert len(others["module"]) == 2
        assert torch.equal(outs["module"][0], spikes)
        assert ins["module"][0].shape == x.shape
        torch.testing.assert_close(potentials["module"][0], v)
        net.module(x[:3])  # by itself, it is a layer as any other
        assert outs["module"][-1].shape == (3, 4, 6)
        set_step_mode(net, "single")
        net(x[0])
        assert outs["module"][-1].shape == (4, 6)
    assert not net._forward_hooks
    assert not net._forward_pre_hooks
