"""Delay, voting, synapse filter, counts and trains: against the equations written anew."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikecore import nn
from spikecore.errors import InputError, OptionError, ShapeError, StateShapeError
from spikecore_layer_zoo import Delay, SpikeCountToBinary, SynapseFilter, TemporalSum, Voting


@given(d=st.integers(0, 7), steps=st.integers(1, 9))
def test_a_delay_is_a_shift(d, steps):
    x = torch.arange(1.0, steps + 1).view(steps, 1)
    wanted = [0.0] * min(d, steps) + list(range(1, steps - d + 1))
    assert Delay(d)(x).flatten().tolist() == wanted


@given(d=st.integers(0, 5), cut=st.integers(1, 7))
def test_a_delay_in_chunks_and_in_single_steps_is_that_of_the_whole(d, cut):
    x = torch.randn(8, 2, 3)
    layer = Delay(d)
    whole = layer(x)
    with nn.streaming(layer):
        assert torch.equal(torch.cat([layer(x[:cut]), layer(x[cut:])]), whole)
    nn.set_step_mode(layer, "single")
    assert torch.equal(torch.stack([layer(step) for step in x]), whole)
    with pytest.raises(StateShapeError, match=r"reset_state\(net\)"):
        layer(x[0, :1])


def test_voting_is_the_mean_of_groups():
    x = torch.randn(2, 3, 12)
    torch.testing.assert_close(Voting(4)(x), torch.stack([x[..., i : i + 4].mean(-1) for i in (0, 4, 8)], -1))
    with pytest.raises(ShapeError, match="multiple of 5"):
        Voting(5)(x)


@given(xs=st.lists(st.floats(0, 1), min_size=1, max_size=12), tau=st.floats(1.5, 50))
def test_the_synapse_filter_follows_its_equation(xs, tau):
    o, wanted = 0.0, []
    for x in xs:
        o = o - (1 - x) * o / tau + x
        wanted.append(o)
    filtered = SynapseFilter(tau=tau)(torch.tensor(xs, dtype=torch.float64).view(-1, 1))
    assert filtered.flatten().tolist() == pytest.approx(wanted, rel=1e-12)


def test_the_synapse_filter_learns_tau_and_is_traced():
    layer = SynapseFilter(tau=3.0, learnable=("tau",))
    layer(torch.rand(5, 2)).sum().backward()
    assert layer.param_tau.grad.abs() > 0
    assert layer.program().states == ("o",)
    x = torch.rand(5, 2, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(SynapseFilter(tau=3.0), (x,))


@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_counts_become_trains_and_trains_counts(counts):
    x = torch.tensor(counts, dtype=torch.float32).view(-1, 1)
    to_train, to_count = SpikeCountToBinary(4), TemporalSum(4)
    assert to_train(x) is x  # training
    assert to_count(x) is x
    train = to_train.eval()(x)
    assert train.flatten().tolist() == [float(slot < k) for k in counts for slot in range(4)]
    assert torch.equal(to_count.eval()(train), x)


def test_a_linear_layer_between_them_is_the_same_on_spikes():
    linear = torch.nn.Linear(5, 3, bias=False)
    x = torch.randint(0, 4, (6, 2, 5)).float()
    spikes = SpikeCountToBinary(3, always=True)(x)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(TemporalSum(3, always=True)(linear(spikes)), linear(x))


@pytest.mark.parametrize("wrong", [1.5, -1.0, 5.0, float("nan")])
def test_what_is_no_count_is_refused(wrong):
    with pytest.raises(InputError, match="whole numbers from 0 to num_slots=4"):
        SpikeCountToBinary(4).eval()(torch.tensor([[wrong]]))


@pytest.mark.parametrize("make", [lambda: Delay(-1), lambda: Delay(1.0), lambda: Voting(0), lambda: TemporalSum(0)])
def test_wrong_options(make):
    with pytest.raises(OptionError, match="whole number"):
        make()


def test_the_number_of_steps_must_fit():
    with pytest.raises(ShapeError, match="multiple of num_slots=4"):
        TemporalSum(4).eval()(torch.zeros(6, 1))
    with pytest.raises(ShapeError, match="set_step_mode"):
        Delay(1)(torch.zeros(3))
