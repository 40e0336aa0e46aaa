"""IF and LIF against spikingjelly, snntorch, norse and sinabs, wherever their equations are ours.

| library      | agrees with                                              | not compared                              |
|--------------|----------------------------------------------------------|-------------------------------------------|
| spikingjelly | IF, LIF: hard, soft; detached or not; decay_input or not | soft, v_reset other than 0 (theirs: 0)    |
| snntorch     | IF, LIF without decay_input: v_reset 0; not detached     | input above the threshold; ties           |
| norse        | IF, LIF with decay_input: hard; not detached             | soft; other surrogate formulas; ties      |
| sinabs       | IF, LIF with decay_input: soft                           | several spikes per step; gradients        |

A tie is h = v_threshold exactly: we and spikingjelly fire, the other two do not. No input here makes one.
"""

import itertools
import math

import pytest
import torch

from spikecore import nn
from tests.peers.compare import assert_same, is_missed, make_input, require, run_ours, run_spikingjelly, run_steps

sj_neuron = require("spikingjelly.activation_based.neuron")
sj_surrogate = require("spikingjelly.activation_based.surrogate")
snntorch = require("snntorch")
sn_surrogate = require("snntorch.surrogate")
norse = require("norse.torch")
sinabs = require("sinabs.layers")

SURROGATES = {
    "atan": (nn.ATan(alpha=3.0), lambda: sj_surrogate.ATan(alpha=3.0)),
    "sigmoid": (nn.Sigmoid(alpha=2.5), lambda: sj_surrogate.Sigmoid(alpha=2.5)),
    "piecewise_quadratic": (nn.PiecewiseQuadratic(alpha=0.7), lambda: sj_surrogate.PiecewiseQuadratic(alpha=0.7)),
    "piecewise_exponential": (nn.PiecewiseExp(alpha=1.5), lambda: sj_surrogate.PiecewiseExp(alpha=1.5)),
    "erf": (nn.Erf(alpha=1.3), lambda: sj_surrogate.Erf(alpha=1.3)),
    "rectangular": (nn.Rect(alpha=0.6), lambda: sj_surrogate.Rect(alpha=0.6)),
    "soft_sign": (nn.SoftSign(alpha=3.0), lambda: sj_surrogate.SoftSign(alpha=3.0)),
    "superspike": (nn.SuperSpike(alpha=1.7), lambda: sj_surrogate.SuperSpike(alpha=1.7)),
}
OPTIONS = {
    "if": [{}],
    "lif": [{"tau": 3.3, "decay_input": False}, {"tau": 3.3, "decay_input": True}, {"tau": 1.4, "decay_input": True}],
}
RESETS = [("hard", -0.2), ("hard", 0.0), ("soft", 0.0)]
SPIKINGJELLY = [
    (name, options, reset, detach, surrogate)
    for name, cases in OPTIONS.items()
    for options, reset, detach in itertools.product(cases, RESETS, (False, True))
    for surrogate in (SURROGATES if name == "lif" else ("atan", "superspike"))
]


def ours(name, **options):
    kind = {"if": nn.IF, "lif": nn.LIF}[name]
    return kind(record=("v",), backend="torch", **options)


def test_the_table_is_as_large_as_it_should_be():
    assert len(SPIKINGJELLY) == 3 * 2 * (3 * 8 + 2)
    assert len(SNNTORCH) == 12
    assert len(NORSE) == 6


@pytest.mark.parametrize(("name", "options", "reset", "detach", "surrogate"), SPIKINGJELLY)
def test_spikingjelly(name, options, reset, detach, surrogate):
    kind, v_reset = reset
    own, make_theirs = SURROGATES[surrogate]
    node = {"if": sj_neuron.IFNode, "lif": sj_neuron.LIFNode}[name](
        v_threshold=0.9,
        v_reset=v_reset if kind == "hard" else None,
        detach_reset=detach,
        surrogate_function=make_theirs(),
        step_mode="m",
        store_v_seq=True,
        **options,
    )
    neuron = ours(name, v_threshold=0.9, v_reset=v_reset, reset=kind, detach_reset=detach, surrogate=own, **options)
    # Their v starts at v_reset with hard reset, at 0 with soft reset; so does ours here.
    x = make_input(low=-1.0, high=4.0)
    assert_same(run_ours(neuron, x), run_spikingjelly(node, x))


SNNTORCH = [
    (tau, reset, surrogate)
    for tau in (None, 1.6, 5.0)
    for reset in ("soft", "hard")
    for surrogate in ("atan", "sigmoid")
]


@pytest.mark.parametrize(("tau", "reset", "surrogate"), SNNTORCH)
def test_snntorch(tau, reset, surrogate):
    own = {"atan": nn.ATan(alpha=3.0), "sigmoid": nn.Sigmoid(alpha=4.0)}[surrogate]
    theirs = {"atan": sn_surrogate.atan(alpha=3.0), "sigmoid": sn_surrogate.sigmoid(slope=4.0)}[surrogate]
    leaky = snntorch.Leaky(
        beta=1.0 if tau is None else 1 - 1 / tau,
        threshold=0.9,
        reset_mechanism={"soft": "subtract", "hard": "zero"}[reset],
        reset_delay=False,
        spike_grad=theirs,
    )
    options = {} if tau is None else {"tau": tau, "decay_input": False}
    neuron = ours("if" if tau is None else "lif", v_threshold=0.9, reset=reset, surrogate=own, **options)
    x = make_input(low=-0.3, high=0.89)

    def step(current, v):
        s, v = leaky(current, v)
        return s, v, v

    run = run_ours(neuron, x)
    assert run.v.max() < 0.9  # above, theirs would reset once more in the next step
    assert_same(run, run_steps(step, leaky.reset_mem(), x))


NORSE = [(name, v_reset, tau) for name, v_reset, tau in itertools.product(("lif",), (0.0, -0.2), (1.5, 4.0))] + [
    ("if", 0.0, None),
    ("if", -0.2, None),
]


@pytest.mark.parametrize(("name", "v_reset", "tau"), NORSE)
def test_norse(name, v_reset, tau):
    common = {
        "v_th": torch.tensor(0.8),
        "v_reset": torch.tensor(v_reset),
        "method": "super",
        "alpha": torch.tensor(1.0),
    }
    functional = norse.functional
    x = make_input(low=-1.0, high=4.0)
    start = torch.full_like(x[0], v_reset)
    if name == "lif":
        box = functional.lif_box
        params = box.LIFBoxParameters(tau_mem_inv=torch.tensor(1 / tau), v_leak=torch.tensor(v_reset), **common)
        state, run_step = box.LIFBoxFeedForwardState(v=start), box.lif_box_feed_forward_step
    else:
        iaf = functional.iaf
        params = iaf.IAFParameters(**common)
        state, run_step = iaf.IAFFeedForwardState(v=start), iaf.iaf_feed_forward_step

    def step(current, state):
        s, state = run_step(current, state, params, dt=1.0)
        return s, state.v, state

    options = {} if tau is None else {"tau": tau}
    neuron = ours(name, v_threshold=0.8, v_reset=v_reset, surrogate=nn.SuperSpike(alpha=1.0), **options)
    assert_same(run_ours(neuron, x), run_steps(step, state, x))


@pytest.mark.parametrize("tau", [None, 2.7])
def test_sinabs(tau):
    activation = require("sinabs.activation")
    options = {"spike_fn": activation.SingleSpike, "record_states": True, "spike_threshold": torch.tensor(0.9)}
    if tau is None:
        layer, neuron = sinabs.IAF(**options), ours("if", v_threshold=0.9, reset="soft")
    else:  # theirs decays by exp(-1/tau) and divides the input accordingly
        layer = sinabs.LIF(tau_mem=tau, norm_input=True, **options)
        neuron = ours("lif", v_threshold=0.9, reset="soft", tau=1 / (1 - math.exp(-1 / tau)))
    x = make_input(low=-0.5, high=2.5)
    theirs = layer(x.transpose(0, 1)).transpose(0, 1)
    run = run_ours(neuron, x)
    assert 0.05 < run.spikes.mean() < 0.95
    assert torch.equal(run.spikes, theirs)
    assert (run.v - layer.recordings["v_mem"].transpose(0, 1)).abs().max() < 1e-6


def test_the_comparison_tells_neurons_apart():
    x = make_input()
    node = sj_neuron.LIFNode(tau=3.0, surrogate_function=sj_surrogate.ATan(alpha=3.0), step_mode="m", store_v_seq=True)
    theirs = run_spikingjelly(node, x)
    right = {"tau": 3.0, "surrogate": nn.ATan(alpha=3.0)}
    assert not is_missed(run_ours(ours("lif", **right), x), theirs)
    for wrong in (
        {"tau": 3.001},
        {"surrogate": nn.ATan(alpha=3.01)},
        {"detach_reset": True},
        {"reset": "soft"},
        {"decay_input": False},
        {"v_reset": 0.001},
    ):
        assert is_missed(run_ours(ours("lif", **{**right, **wrong}), x), theirs), wrong
