"""`leaky` against snntorch's Leaky: the same bits, delayed or not, subtract, zero and none; inputs with ties."""

import itertools

import pytest
import torch

from spikecore import nn
from tests.peers.compare import assert_same, make_input, require, run_ours, run_steps

snntorch = require("snntorch")
sn_surrogate = require("snntorch.surrogate")

CASES = list(itertools.product(("subtract", "zero", "none"), (True, False), (0.0, 0.6, 0.95, 1.0)))
RESET = {"subtract": "soft", "zero": "hard", "none": "none"}


def steps(layer):
    def step(current, v):
        s, v = layer(current, v)
        return s, v, v

    return step


@pytest.mark.parametrize(("mechanism", "delay", "beta"), CASES)
@pytest.mark.parametrize("ties", [False, True])
def test_snntorch(mechanism, delay, beta, ties):
    x = make_input(low=-2.0, high=3.5) if mechanism != "none" else make_input(low=-1.0, high=1.2)
    if ties:
        x = (x * 4).round() / 4
    theirs = snntorch.Leaky(
        beta=beta, threshold=0.75, reset_mechanism=mechanism, reset_delay=delay, spike_grad=sn_surrogate.atan(alpha=3.0)
    )
    ours = nn.Leaky(
        beta=beta,
        v_threshold=0.75,
        reset=RESET[mechanism],
        reset_delay=delay,
        surrogate=nn.ATan(alpha=3.0),
        record=("v",),
        backend="torch",
    )
    run, other = run_ours(ours, x), run_steps(steps(theirs), theirs.reset_mem(), x)
    assert torch.equal(run.spikes, other.spikes)
    assert torch.equal(run.v, other.v)
    assert_same(run, other)


def test_lif_is_another_neuron():
    """The nearest option set of LIF differs in spikes: that is why `leaky` exists."""
    x = make_input(64, 8, 32, low=-0.5, high=1.5)
    lif = nn.LIF(tau=20.0, decay_input=False, reset="soft", detach_reset=True, fires="above")
    ours = nn.Leaky(beta=0.95)
    assert (lif(x) != ours(x)).float().mean() > 0.01
