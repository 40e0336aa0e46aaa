"""`optimize` on nets with a part at two places and containers within containers, where no backend takes bits."""

import pytest
import torch
from torch import nn as torch_nn

from spikecore import nn
from spikecore.nn.bit_net import BitSequential
from spikecore.nn.model import parts_of


def run_both(net, x):
    optimized = nn.optimize(net)
    with torch.no_grad():
        return optimized, optimized(x), net.eval()(x)


@pytest.mark.parametrize("kind", [nn.Sequential, torch_nn.Sequential])
def test_a_part_at_two_places_runs_twice(kind):
    torch.manual_seed(0)
    lif = nn.LIF(v_threshold=0.3)
    net = kind(nn.Linear(6, 8), lif, nn.Linear(8, 5), lif)
    optimized, out, right = run_both(net, torch.rand(5, 3, 6) * 4)
    assert len(optimized) == 4
    assert optimized[1] is optimized[3]
    assert 0 < right.mean() < 1
    assert torch.equal(out, right)


def test_containers_within_containers_pass_bits_too():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(8, 8), nn.LIF(v_threshold=0.2))
    net = nn.Sequential(nn.Linear(6, 8), nn.LIF(v_threshold=0.3), nn.Sequential(inner, nn.Linear(8, 8)), inner)
    optimized, out, right = run_both(net, torch.rand(5, 3, 6) * 4)
    assert [type(part) for part in optimized][2:] == [BitSequential, BitSequential]
    assert type(optimized[2][0]) is BitSequential
    assert optimized[2][0] is optimized[3], "one container at two places became two"
    assert 0 < right.mean() < 1
    assert torch.equal(out, right)
    assert list(optimized.state_dict()) == list(net.state_dict())


def test_the_parts_of_a_chain_are_those_that_run():
    relu = torch_nn.ReLU()
    chain = torch_nn.Sequential(relu, torch_nn.Tanh(), relu)
    assert parts_of(chain) == {"0": relu, "1": chain[1], "2": relu}
