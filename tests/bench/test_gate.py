"""A backend that computes something else is found out, however it is wrong; a right one passes."""

import pytest
import torch

from spikecore.bench.candidates import Candidate, Unsupported, backends
from spikecore.bench.cases import TRAINING, Case, Runner
from spikecore.bench.gate import backend_gate, outcome, peer_gate
from spikecore.registry import register, use
from tests.bench import toys

SHAPE = (8, 4, 128)


@pytest.fixture(autouse=True)
def registry():
    registry = toys.core_alone()
    with use(registry):
        register("backend", "right", toys.Right)
        register("backend", "nearly", toys.NearlyRight)
        register("backend", "picky", toys.Picky)
        register("backend", "wrong_parameter_gradient", toys.WrongParameterGradient)
        for name, (backend, _) in toys.WRONG.items():
            register("backend", name, backend)
        register("neuron", "learner", toys.Learner)
        register("neuron", "grower", toys.Grower)
        register("neuron", "late", toys.Late)
        yield registry


def verdict(name, case=Case("lif", SHAPE)):  # noqa: B008
    reference, candidate = backends([name])[0]
    return backend_gate(candidate, reference, case)


@pytest.mark.parametrize("neuron", ["lif", "if", "learner", "grower", "late"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_right_backend_passes(neuron, dtype):
    judgement = verdict("right", Case(neuron, SHAPE, dtype=dtype))
    assert judgement.ok, judgement.text


def test_the_last_bit_of_a_state_is_free():
    assert verdict("nearly").ok


def test_where_float32_is_badly_conditioned_the_truth_decides():
    register("neuron", "chaos", toys.Chaos)
    register("backend", "double", toys.Double)
    case = Case("chaos", (16, 4, 64))
    reference, candidate = backends(["double"])[0]
    x, grad = case.input(), case.grad()
    eager, double = (
        outcome(contender.make(case, TRAINING), x, grad).values["final v"] for contender in (reference, candidate)
    )
    assert ((double - eager).abs() / eager.abs()).max() > 1e-5  # or there is nothing to decide
    assert verdict("double", case).ok
    assert "final v differs" in verdict("wrong_state", case).text


@pytest.mark.parametrize("name", toys.WRONG)
def test_a_wrong_backend_does_not(name):
    judgement = verdict(name)
    assert not judgement.ok
    assert toys.WRONG[name][1] in judgement.text


def test_a_wrong_gradient_of_a_parameter_is_found():
    judgement = verdict("wrong_parameter_gradient", Case("learner", SHAPE))
    assert not judgement.ok
    assert "gradient of param_tau differs by 1.0e-02" in judgement.text


def test_what_a_backend_does_not_take_is_no_failure():
    with pytest.raises(Unsupported, match="the moon is not full"):
        verdict("picky")


def peer(call, **traits):
    candidate = Candidate("peer", lambda case, measure: Runner(call), **traits)
    return peer_gate(candidate, backends(["right"])[0][0], Case("lif", SHAPE))


def ours(x, tau=2.0, detach_reset=True):
    from spikecore.nn import LIF

    return LIF(tau=tau, detach_reset=detach_reset, backend="torch")(x)


def test_a_peer_with_our_dynamics_passes():
    judgement = peer(ours)
    assert judgement.ok
    assert judgement.text == "spikes equal, gradients equal"


def test_a_peer_with_other_dynamics_is_found_out():
    judgement = peer(lambda x: ours(x, tau=2.5))
    assert not judgement.ok
    assert "other dynamics" in judgement.text


def test_a_peer_with_another_gradient_must_say_so():
    def other(x):
        return ours(x, detach_reset=False)

    assert "gradients differ" in peer(other).text
    assert not peer(other).ok
    assert peer(other, same_gradient=False).text == "spikes equal; other surrogate"


def test_a_peer_that_declares_other_dynamics_is_not_compared():
    judgement = peer(lambda x: x, same_dynamics=False, about="it integrates twice")
    assert judgement.ok
    assert judgement.text == "not compared: it integrates twice"


def test_a_peer_that_runs_one_step_of_many_is_found_out():
    assert "returns (4, 128), expected (8, 4, 128)" in peer(lambda x: ours(x)[0]).text
