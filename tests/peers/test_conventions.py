"""Rows of "coming from norse" and "coming from sinabs" that no other file here compares: ties, v_leak, recurrence."""

import pytest
import torch

from spikecore import nn
from tests.peers.compare import assert_same, make_input, require, run_ours, run_steps

norse = require("norse.torch")
snntorch = require("snntorch")


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
