"""Izhikevich and EIF against the equations integrated anew in Python floats, and through `spike run`."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from spikecore_neuron_zoo import EIF, Izhikevich

import spikecore
from spikecore.errors import OptionError
from spikecore.registry import find
from spikecore.run.config import resolve


def izhikevich(
    xs, tau=2.0, v_c=0.8, a0=1.0, v_rest=-0.1, w_rest=0.0, tau_w=2.0, a=0.0, b=0.0, th=1.0, v_reset=0.0, hard=True
):
    v, w, spikes, trace = v_reset, w_rest, [], []
    for x in xs:
        v = v + (x + a0 * (v - v_rest) * (v - v_c) - w) / tau
        w = w + (a * (v - v_rest) - w) / tau_w
        fired = v >= th
        if fired:
            w += b
            v = v_reset if hard else v - th
        spikes.append(float(fired))
        trace.append((v, w))
    return spikes, trace


def eif(xs, tau=2.0, delta=1.0, theta=0.8, v_rest=0.0, th=1.0, v_reset=-0.1, hard=True):
    v, spikes, trace = v_reset, [], []
    for x in xs:
        v = v + (x + v_rest - v + delta * math.exp((v - theta) / delta)) / tau
        fired = v >= th
        if fired:
            v = v_reset if hard else v - th
        spikes.append(float(fired))
        trace.append(v)
    return spikes, trace


currents = st.lists(st.floats(-2.0, 3.0), min_size=1, max_size=12)


def run(neuron, xs):
    x = torch.tensor(xs, dtype=torch.float64).reshape(-1, 1, 1)
    return neuron(x).flatten().tolist(), {name: trace.flatten().tolist() for name, trace in neuron.recorded.items()}


@given(xs=currents, a=st.floats(0.0, 0.5), b=st.floats(0.0, 0.5), hard=st.booleans())
def test_izhikevich_follows_its_equations(xs, a, b, hard):
    neuron = Izhikevich(a=a, b=b, tau_w=5.0, w_rest=0.1, reset="hard" if hard else "soft", record=("v", "w"))
    spikes, recorded = run(neuron, xs)
    wanted, trace = izhikevich(xs, a=a, b=b, tau_w=5.0, w_rest=0.1, hard=hard)
    assert spikes == wanted
    assert recorded["v"] == pytest.approx([v for v, _ in trace], rel=1e-9, abs=1e-12)
    assert recorded["w"] == pytest.approx([w for _, w in trace], rel=1e-9, abs=1e-12)


@given(xs=currents, delta=st.floats(0.3, 2.0), hard=st.booleans())
def test_eif_follows_its_equation(xs, delta, hard):
    neuron = EIF(delta_T=delta, v_rest=0.05, reset="hard" if hard else "soft", record=("v",))
    spikes, recorded = run(neuron, xs)
    wanted, trace = eif(xs, delta=delta, v_rest=0.05, hard=hard)
    assert spikes == wanted
    assert recorded["v"] == pytest.approx(trace, rel=1e-9, abs=1e-12)


def test_adaptation_slows_the_rate_down():
    x = torch.full((60, 1, 1), 1.5)
    assert Izhikevich(b=1.0, tau_w=20.0)(x).sum() < Izhikevich()(x).sum()


@pytest.mark.parametrize("cls", [Izhikevich, EIF])
def test_the_smooth_gradient_is_that_of_finite_differences(cls):
    neuron = cls(surrogate={"name": "sigmoid", "spiking": False})
    x = torch.randn(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    torch.autograd.gradcheck(neuron, (x,))


@pytest.mark.parametrize(("cls", "wrong"), [(Izhikevich, {"tau_w": 1.0}), (EIF, {"delta_T": 0.0}), (EIF, {"tau": 0.5})])
def test_options_out_of_range(cls, wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        cls(**wrong)


@pytest.mark.parametrize("name", ["izhikevich", "eif"])
def test_spike_run_trains_with_it(name, tmp_path):
    assert find("neuron", name).plugin.distribution == "spikecore-neuron-zoo"
    config = resolve(None, [f"neuron.name={name}", "trainer.epochs=8"])
    result = spikecore.run(config, out=tmp_path / "run")
    assert result.metrics["test_accuracy"] > 0.9
    plugins = json.loads((tmp_path / "run" / "run.json").read_text())["plugins"]
    assert {"neuron-zoo", "core"} == {plugin["id"] for plugin in plugins}
