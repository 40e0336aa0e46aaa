"""What a neuron computes with, told from outside: given to a neuron of plain options it computes the same."""

import pytest
import torch

from spikecore.nn import IF, LIF, CubaLIF, ParametricLIF, option_values

CASES = {
    "plain": LIF(backend="torch", tau=3.0, v_reset=-0.25, reset="soft"),
    "per channel": LIF(backend="torch", tau=[1.5, 2.1, 5.0], v_threshold=[0.5, 1.0, 0.3]),
    "trained": LIF(backend="torch", tau=2.0, v_threshold=[0.9, 1.0, 1.1], learnable=("tau", "v_threshold")),
    "integrator": IF(backend="torch", v_threshold=0.7, learnable=("v_threshold",)),
    "current": CubaLIF(backend="torch", c_decay=0.3, learnable=("c_decay", "v_decay")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_neuron_of_these_options_computes_the_same(name):
    neuron, x = CASES[name], torch.rand(12, 4, 3, generator=torch.Generator().manual_seed(0)) * 3
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.mul_(1.2)
    values = option_values(neuron)
    assert "learnable" not in values
    plain = type(neuron)(backend="torch", **values)
    assert not list(plain.parameters())
    with torch.no_grad():
        out = neuron(x)
    assert out.any()
    assert not out.all()
    assert torch.equal(plain(x), out)


def test_a_value_that_was_only_rounded_is_told_as_it_was_written():
    assert option_values(LIF(tau=[2.1, 3.0]))["tau"] == (2.1, 3.0)
    assert option_values(LIF(tau=2.1, learnable=("tau",)))["tau"] == 2.1


def test_a_value_from_a_checkpoint_counts():
    trained, fresh = LIF(tau=[2.5, 4.0]), LIF(tau=[2.0, 2.0])
    fresh.load_state_dict(trained.state_dict())
    assert option_values(fresh)["tau"] == (2.5, 4.0)


def test_the_trained_parameter_of_plif_stands_for_its_first_value():
    plif = ParametricLIF(init_tau=2.0)
    with torch.no_grad():
        plif.param_w.fill_(-1.0)
    values = option_values(plif)
    assert "init_tau" not in values
    assert values["w"] == -1.0
