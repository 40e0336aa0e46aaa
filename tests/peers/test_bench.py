"""What `spike bench --peers` measures is what its table claims: our spikes, and our gradients where it says so."""

import os
from dataclasses import replace

import pytest
import torch

from spikecore.bench import nets
from spikecore.bench.candidates import reference
from spikecore.bench.cases import FORWARD, TRAINING, Case
from spikecore.bench.gate import peer_gate
from spikecore.bench.peers import LIBRARIES, peers

CASE = Case("lif", (12, 3, 200))


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_computes_what_the_table_claims(name):
    candidates, absent = peers(only=name)
    if absent:
        pytest.skip(f"{name} {absent[name]}")
    verdict = peer_gate(candidates[0], reference(), CASE)
    gradients = ", gradients equal" if candidates[0].same_gradient else "; other surrogate"
    assert verdict.text == f"spikes equal{gradients}"


def test_spikingjelly_trains_the_time_constant_too():
    found, absent = peers(only="spikingjelly")
    if absent:
        pytest.skip(f"spikingjelly {absent['spikingjelly']}")
    case = Case("plif", (12, 3, 200))
    assert peer_gate(found[0], reference(), case).text == "spikes equal, gradients equal"
    x, grad = case.input(), case.grad()
    theirs, ours = (who.make(case, TRAINING).once(TRAINING, x, grad)() for who in (found[0], reference()))
    assert len(theirs) == len(ours) == 2, "the input and w"
    assert abs(float(ours[1])) > 1.0
    torch.testing.assert_close(theirs[1], ours[1], rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_call_keeps_nothing_for_the_next(name):
    """Or the second round would measure another sequence than the first."""
    candidates, absent = peers(only=name)
    if absent:
        pytest.skip(f"{name} {absent[name]}")
    for measure in (FORWARD, TRAINING):
        runner = candidates[0].make(CASE, measure)
        x = runner.prepare(CASE.input())
        assert (runner.call(x) == runner.call(x)).all()


@pytest.mark.skipif(not os.environ.get("SPIKE_FULL"), reason="compiling takes half a minute: SPIKE_FULL=1")
def test_the_compiled_loop_computes_the_same():
    verdict = peer_gate(peers(only="torch.compile")[0][0], reference(), CASE)
    assert verdict.text == "spikes equal, gradients equal"


@pytest.mark.parametrize("name", ["linear", "conv", "direct"])
def test_spikingjelly_trains_the_same_net(name, monkeypatch):
    pytest.importorskip("spikingjelly", reason="spikingjelly is not installed")
    net = nets.NETS[name]
    monkeypatch.setitem(nets.NETS, name, replace(net, shape=nets.tiny(name)))
    judgement = nets.gate(name, nets.PEER, reference().name, "cpu")
    assert judgement.ok, judgement.text
