"""ParametricLIF, CubaLIF and the readouts that never spike, against spikingjelly, snntorch and norse.

| neuron           | spikingjelly                              | snntorch                           | norse |
|------------------|-------------------------------------------|------------------------------------|-------|
| `plif`           | ParametricLIFNode, also the gradient of w |                                    |       |
| `cuba_lif`       | CUBALIFNode (v_reset 0)                   | Synaptic (v_reset 0, not detached) |       |
| `li`             | NonSpikingLIFNode, with its decodings     |                                    | LIBox |
| `non_spiking_if` | NonSpikingIFNode, with its decodings      |                                    |       |

norse's current-based LIF hands the current on one step later, so it is another neuron.
"""

import itertools

import pytest
import torch

from spikecore import nn
from spikecore.registry import components, load
from tests.peers.compare import (
    Run,
    assert_near,
    assert_same,
    make_input,
    require,
    run_ours,
    run_spikingjelly,
    run_steps,
)

sj_neuron = require("spikingjelly.activation_based.neuron")
sj_surrogate = require("spikingjelly.activation_based.surrogate")
snntorch = require("snntorch")
sn_surrogate = require("snntorch.surrogate")
norse = require("norse.torch")

CORE = {entry.name for entry in components("neuron") if entry.plugin.id == "core"}
COMPARED = {"if", "lif", "plif", "cuba_lif", "li", "non_spiking_if"}
RESETS = [("hard", -0.2), ("hard", 0.0), ("soft", 0.0)]
PLIF = list(itertools.product((1.5, 4.0), (True, False), RESETS, (True, False)))
CUBA = list(itertools.product(("hard", "soft"), (True, False), ((0.5, 0.75), (0.2, 0.9), (0.9, 0.3))))


def test_there_is_enough_to_compare():
    """A new neuron with a counterpart elsewhere gets its test here; one without needs none."""
    assert COMPARED <= CORE
    assert len(PLIF) == 24
    assert len(CUBA) == 12


@pytest.mark.parametrize(("tau", "decay_input", "reset", "detach"), PLIF)
def test_parametric_lif(tau, decay_input, reset, detach):
    kind, v_reset = reset
    node = sj_neuron.ParametricLIFNode(
        init_tau=tau,
        decay_input=decay_input,
        v_threshold=0.8,
        v_reset=v_reset if kind == "hard" else None,
        detach_reset=detach,
        surrogate_function=sj_surrogate.Sigmoid(alpha=2.5),
        step_mode="m",
        store_v_seq=True,
    )
    neuron = nn.ParametricLIF(
        init_tau=tau,
        decay_input=decay_input,
        v_threshold=0.8,
        v_reset=v_reset,
        reset=kind,
        detach_reset=detach,
        surrogate=nn.Sigmoid(alpha=2.5),
        record=("v",),
        backend="torch",
    )
    x = make_input()
    ours, theirs = run_ours(neuron, x, parameters=["param_w"]), run_spikingjelly(node, x, parameters=["w"])
    assert_same(ours, theirs, {"param_w": "w"})


@pytest.mark.parametrize(("reset", "detach", "decays"), CUBA)
def test_cuba_lif(reset, detach, decays):
    c_decay, v_decay = decays
    node = sj_neuron.CUBALIFNode(c_decay, v_decay, 0.9, 0.0 if reset == "hard" else None, sj_surrogate.ATan(alpha=3.0))
    node.step_mode, node.store_v_seq, node.detach_reset = "m", True, detach
    neuron = nn.CubaLIF(
        c_decay=c_decay,
        v_decay=v_decay,
        v_threshold=0.9,
        reset=reset,
        detach_reset=detach,
        surrogate=nn.ATan(alpha=3.0),
        record=("v",),
        backend="torch",
    )
    x = make_input(low=-1.0, high=1.2)
    assert_same(run_ours(neuron, x), run_spikingjelly(node, x))


@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_cuba_lif_of_snntorch(reset):
    synaptic = snntorch.Synaptic(
        alpha=0.4,
        beta=0.7,
        threshold=0.9,
        reset_mechanism={"soft": "subtract", "hard": "zero"}[reset],
        reset_delay=False,
        spike_grad=sn_surrogate.atan(alpha=3.0),
    )

    def step(current, state):
        s, syn, mem = synaptic(current, *state)
        return s, mem, (syn, mem)

    neuron = nn.CubaLIF(
        c_decay=0.4,
        v_decay=0.7,
        v_threshold=0.9,
        reset=reset,
        surrogate=nn.ATan(alpha=3.0),
        record=("v",),
        backend="torch",
    )
    x = make_input(low=-0.3, high=0.6)
    run = run_ours(neuron, x)
    assert run.v.max() < 0.9  # above, theirs would reset once more in the next step
    assert_same(run, run_steps(step, synaptic.reset_mem(), x))


def run_readout(layer, x):
    """A layer that gives potentials: a run whose spikes are not looked at."""
    x = x.clone().requires_grad_()
    out = layer(x)
    out = torch.stack(out) if isinstance(out, list) else out
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(7))
    (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    return Run(torch.zeros_like(out), out.detach(), gradient)


def assert_same_readout(ours, theirs):
    assert_near(ours.v, theirs.v, 1e-6)
    assert_near(ours.gradient, theirs.gradient, 1e-5)


@pytest.mark.parametrize("tau", [None, 1.5, 7.0])
def test_readouts_that_never_spike(tau):
    node = sj_neuron.NonSpikingIFNode() if tau is None else sj_neuron.NonSpikingLIFNode(tau=tau)
    options = {} if tau is None else {"tau": tau}
    neuron = (nn.NonSpikingIF if tau is None else nn.LI)(backend="torch", **options)
    x = make_input(low=-1.0, high=1.0)
    ours = run_readout(neuron, x)
    assert_same_readout(ours, run_readout(node, x))
    for decode, readout in (("max-mem", "max"), ("mean-mem", "rate"), ("last_mem", "last"), ("max-abs-mem", "max_abs")):
        node.decode = decode
        read = load("readout", readout)
        assert_same_readout(run_readout(lambda value, read=read: read(neuron(value)), x), run_readout(node, x))


def test_li_of_norse():
    box = norse.functional.leaky_integrator_box
    params = box.LIBoxParameters(tau_mem_inv=torch.tensor(1 / 3.5), v_leak=torch.tensor(0.0))
    x = make_input(low=-1.0, high=1.0)

    def run(value):
        state, outs = box.LIBoxState(v=torch.zeros_like(value[0])), []
        for current in value.unbind(0):
            out, state = box.li_box_feed_forward_step(current, state, params, dt=1.0)
            outs.append(out)
        return torch.stack(outs)

    assert_same_readout(run_readout(nn.LI(tau=3.5, backend="torch"), x), run_readout(run, x))
