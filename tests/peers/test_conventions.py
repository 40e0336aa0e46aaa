"""Rows of "coming from norse" and "coming from sinabs" that no other file here compares: ties, v_leak, recurrence."""

import pytest
import torch

from spikecore import nn
from tests.peers.compare import (
    GRADIENT_TOLERANCE,
    V_TOLERANCE,
    assert_near,
    assert_same,
    make_input,
    require,
    run_ours,
    run_steps,
)

norse = require("norse.torch")
snntorch = require("snntorch")
sn_surrogate = require("snntorch.surrogate")
sinabs = require("sinabs.layers")
activation = require("sinabs.activation")


def with_ties(**options):
    return (make_input(**options) * 4).round() / 4


@pytest.mark.parametrize(("v_leak", "v_reset"), [(-0.25, 0.5), (0.25, -0.5)])
def test_norse_lif_box_with_its_own_leak_and_ties(v_leak, v_reset):
    box = norse.functional.lif_box
    params = box.LIFBoxParameters(
        tau_mem_inv=torch.tensor(0.5),
        v_leak=torch.tensor(v_leak),
        v_th=torch.tensor(0.75),
        v_reset=torch.tensor(v_reset),
        method="super",
        alpha=torch.tensor(1.0),
    )
    x = with_ties(low=-1.0, high=4.0)

    def step(current, state):
        s, state = box.lif_box_feed_forward_step(current, state, params, dt=1.0)
        return s, state.v, state

    options = {"tau": 2.0, "v_leak": v_leak, "v_reset": v_reset, "v_threshold": 0.75, "v_init": v_leak}
    surrogate = nn.SuperSpike(alpha=1.0)
    start = box.LIFBoxFeedForwardState(v=torch.full_like(x[0], v_leak))
    theirs = run_steps(step, start, x)
    assert_same(
        run_ours(nn.LIF(**options, fires="above", surrogate=surrogate, record=("v",), backend="torch"), x), theirs
    )
    at = nn.LIF(**options, surrogate=surrogate)(x)
    assert not torch.equal(at, theirs.spikes), "the input makes no tie"


def test_norse_iaf_at_ties():
    iaf = norse.functional.iaf
    params = iaf.IAFParameters(
        v_th=torch.tensor(1.0), v_reset=torch.tensor(0.0), method="super", alpha=torch.tensor(1.0)
    )
    x = torch.full((8, 1, 1), 0.5)

    def step(current, state):
        s, state = iaf.iaf_feed_forward_step(current, state, params, dt=1.0)
        return s, state.v, state

    theirs = run_steps(step, iaf.IAFFeedForwardState(v=torch.zeros(1, 1)), x)
    neuron = nn.IF(fires="above", surrogate=nn.SuperSpike(alpha=1.0), record=("v",), backend="torch")
    assert theirs.spikes.flatten().nonzero().flatten().tolist() == [2, 5]
    assert_same(run_ours(neuron, x), theirs)


@pytest.mark.parametrize(("tau_syn_inv", "tau_mem_inv", "v_reset"), [(0.4, 0.25, 0.0), (0.8, 0.5, -0.25)])
def test_norse_lif_recurrent(tau_syn_inv, tau_mem_inv, v_reset):
    """`CubaLIF` in a lateral recurrence; our weights carry the factor tau_mem_inv of their current."""
    torch.manual_seed(0)
    lif = norse.functional.lif
    params = lif.LIFParameters(
        *map(torch.tensor, (tau_syn_inv, tau_mem_inv, 0.0, 0.75, v_reset)), method="super", alpha=torch.tensor(1.0)
    )
    theirs = norse.LIFRecurrent(6, 5, p=params, dt=1.0, record_states=True)
    x = make_input(24, 4, 6).requires_grad_()
    spikes, states = theirs(x)
    neuron = nn.CubaLIF(
        c_decay=1 - tau_syn_inv,
        v_decay=1 - tau_mem_inv,
        v_threshold=0.75,
        v_reset=v_reset,
        v_init=0.0,
        fires="above",
        detach_reset=True,
        surrogate=nn.SuperSpike(alpha=1.0),
        record=("v",),
        backend="torch",
    )
    ours = nn.LateralRecurrent(neuron, 5)
    ours.lateral.weight.data.copy_(theirs.recurrent_weights * tau_mem_inv)
    y = x.detach().clone().requires_grad_()
    out = ours(y @ theirs.input_weights.detach().T * tau_mem_inv)
    assert 0.1 < spikes.mean() < 0.9
    assert torch.equal(out, spikes)
    potentials = neuron.recorded["v"]
    assert (potentials - states.v).abs().max() < V_TOLERANCE * states.v.abs().max()  # of about 10
    weights = torch.randn(2, *spikes.shape)
    (weights[0] * spikes + weights[1] * states.v).sum().backward()
    (weights[0] * out + weights[1] * potentials).sum().backward()
    assert_near(y.grad, x.grad, GRADIENT_TOLERANCE)
    # They leave out the diagonal, the weight of a neuron to itself.
    apart = 1 - torch.eye(5)
    assert_near(ours.lateral.weight.grad * tau_mem_inv * apart, theirs.recurrent_weights.grad, GRADIENT_TOLERANCE)


@pytest.mark.parametrize("delay", [True, False])
def test_snntorch_learns_beta_and_threshold(delay):
    x = make_input(low=-0.5, high=2.0)
    theirs = snntorch.Leaky(
        beta=0.8,
        threshold=0.75,
        learn_beta=True,
        learn_threshold=True,
        reset_delay=delay,
        spike_grad=sn_surrogate.atan(alpha=2.0),
    )

    def step(current, v):
        s, v = theirs(current, v)
        return s, v, v

    other = run_steps(step, theirs.reset_mem(), x, {"beta": theirs.beta, "v_threshold": theirs.threshold})
    neuron = nn.Leaky(
        beta=0.8,
        v_threshold=0.75,
        reset_delay=delay,
        learnable=("beta", "v_threshold"),
        record=("v",),
        backend="torch",
    )
    run = run_ours(neuron, x, parameters=["param_beta", "param_v_threshold"])
    assert 0.1 < run.spikes.mean() < 0.9
    assert_same(run, other, {"param_beta": "beta", "param_v_threshold": "v_threshold"})
    assert all(gradient.abs() > 0.1 for gradient in run.parameters.values())


def test_the_time_axis_of_sinabs():
    """Axis 1 there, axis 0 here: the same neuron on the transposed sequence, T and B different."""
    x = make_input(7, 3, 2, low=-0.5, high=2.5)
    layer = sinabs.IAF(spike_fn=activation.SingleSpike, spike_threshold=torch.tensor(0.9))
    neuron = nn.IF(v_threshold=0.9, reset="soft")
    theirs = layer(x.transpose(0, 1))
    assert theirs.shape == (3, 7, 2)
    assert torch.equal(neuron(x), theirs.transpose(0, 1))
    layer.reset_states()
    assert not torch.equal(neuron(x), layer(x)), "the axes mean the same there"


@pytest.mark.parametrize("options", [{}, {"stride": 1}, {"stride": (2, 3)}])
def test_sum_pool_of_sinabs(options):
    spikes = (make_input(4, 3, 2, 7, 8) > 1).float()
    ours = nn.SumPool2d((2, 3), **options)(spikes)
    theirs = sinabs.SumPool2d((2, 3), **options)(spikes.flatten(0, 1)).unflatten(0, (4, 3))
    assert ours.max() > 3
    assert_near(ours, theirs, V_TOLERANCE)


def test_where_sum_pools_differ():
    """With ceil_mode the last windows are cut off: ours sums what is inside, theirs scales that to a whole window."""
    ones = torch.ones(1, 1, 1, 2, 5)
    ours, theirs = nn.SumPool2d((2, 3), ceil_mode=True), sinabs.SumPool2d((2, 3), ceil_mode=True)
    assert ours(ones).flatten().tolist() == [6.0, 4.0]
    assert theirs(ones[0]).flatten().tolist() == [6.0, 6.0]
