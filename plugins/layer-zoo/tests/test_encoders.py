"""Each encoder against its formula, its inverse where there is one, and its bounds."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikecore import create
from spikecore.errors import InputError, OptionError, ShapeError
from spikecore_layer_zoo import GaussianTuning, Periodic, Population, RankOrder, WeightedPhase


@given(period=st.integers(1, 5), num_steps=st.integers(1, 12))
def test_periodic_repeats(period, num_steps):
    pattern = torch.rand(period, 2, 3)
    out = create("encoder", "periodic", num_steps=num_steps, sequences=True)(pattern)
    assert all(torch.equal(out[t], pattern[t % period]) for t in range(num_steps))
    assert len(out) == num_steps
    with pytest.raises(ShapeError, match="P >= 1"):
        Periodic(sequences=True)(pattern[:0])


@given(bits=st.integers(1, 10), data=st.data())
def test_weighted_phase_is_the_binary_expansion(bits, data):
    whole = data.draw(st.integers(0, 2**bits - 1))
    encoder = WeightedPhase(num_steps=2 * bits, num_phases=bits)
    out = encoder(torch.tensor([[whole / 2**bits]], dtype=torch.float64))
    assert out[:bits].flatten().tolist() == [float(bit) for bit in f"{whole:0{bits}b}"]
    assert torch.equal(out[:bits], out[bits:])
    assert encoder.decode(out).item() == whole / 2**bits


@pytest.mark.parametrize("wrong", [-0.01, 1.0, float("nan")])
def test_weighted_phase_refuses_what_it_cannot_write(wrong):
    with pytest.raises(InputError, match=r"from 0 to 0\.9375"):
        WeightedPhase(num_phases=4)(torch.tensor([[wrong]]))
    saturating = WeightedPhase(num_steps=4, num_phases=4, saturate=True)
    assert saturating.decode(saturating(torch.tensor([[1.0]]))).item() == 0.9375
    with pytest.raises(ShapeError, match="at least 4 steps"):
        WeightedPhase(num_phases=4).decode(torch.zeros(3, 1))


def test_population_activations_are_gaussians():
    encoder = Population(num_steps=2, size=5, low=-2.0, high=2.0, std=0.5)
    x = torch.tensor([[0.3, -1.2]])
    out = encoder(x)
    wanted = [math.exp(-0.5 * ((value - mu) / 0.5) ** 2) for value in (0.3, -1.2) for mu in (-2, -1, 0, 1, 2)]
    assert out.shape == (2, 1, 10)
    assert out[1].flatten().tolist() == pytest.approx(wanted, rel=1e-5)


def test_population_spikes_deterministically_at_the_rate_of_the_activation():
    raw = Population(num_steps=200, size=5)
    spiking = Population(num_steps=200, size=5, mode="deterministic")
    x = torch.tensor([[0.3, 2.9]])
    activations, spikes = raw(x)[0], spiking(x)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert (spikes.mean(0) - activations / 0.999).abs().max() <= 1 / 200 + 1e-6


def test_population_draws_from_its_generator():
    encoder = Population(num_steps=4000, size=5, mode="random")
    x = torch.tensor([[0.3]])
    one, same = (encoder(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, same)
    assert not torch.equal(one, encoder(x, torch.Generator().manual_seed(4)))
    assert (one.mean(0) - Population(size=5)(x)[0]).abs().max() < 0.04


@pytest.mark.parametrize("mode", ["raw", "deterministic", "random"])
def test_population_learns_as_if_it_were_raw(mode):
    encoder = Population(num_steps=3, size=4, num_inputs=2, mode=mode)
    x = torch.tensor([[0.3, -1.0]], requires_grad=True)
    encoder(x).sum().backward()
    raw = Population(num_steps=3, size=4, num_inputs=2)
    y = x.detach().clone().requires_grad_()
    raw(y).sum().backward()
    for one, other in ((x, y), (encoder.mu, raw.mu), (encoder.sigma, raw.sigma)):
        torch.testing.assert_close(one.grad, other.grad)
        assert one.grad.abs().sum() > 0


def test_gaussian_tuning_follows_its_formula():
    encoder = GaussianTuning(num_steps=20, size=5, low=-1.0, high=3.0)
    out = encoder(torch.tensor([[0.4]]))
    for i in range(1, 6):
        mu, sigma = -1 + (2 * i - 3) / 2 * 4 / 3, 4 / (1.5 * 3)
        time = round(20 * (1 - math.exp(-((0.4 - mu) ** 2) / (2 * sigma**2))))
        spikes = out[:, 0, i - 1].nonzero().flatten().tolist()
        assert spikes == ([time] if time < 20 else [])


@pytest.mark.parametrize(("cls", "low"), [(Population, -3.0), (GaussianTuning, 0.0)])
def test_values_outside_the_fields_are_refused(cls, low):
    with pytest.raises(InputError, match=f"from {low:g} to"):
        cls()(torch.tensor([[low - 0.1]]))
    with pytest.raises(OptionError, match="low must be below high"):
        cls(low=1.0, high=1.0)


def test_population_needs_its_number_of_inputs():
    with pytest.raises(ShapeError, match="num_inputs=3"):
        Population(num_inputs=3)(torch.zeros(1, 2))


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9), st.integers(1, 12))
def test_rank_order_is_the_order(values, num_steps):
    out = RankOrder(num_steps=num_steps)(torch.tensor([values], dtype=torch.float64))
    assert torch.equal(out.sum(0), torch.ones(1, len(values), dtype=torch.float64))
    times = out[:, 0].argmax(0).tolist()
    ranked = sorted(range(len(values)), key=lambda i: -values[i])
    assert [times[i] for i in ranked] == [rank * num_steps // len(values) for rank in range(len(values))]


def test_rank_order_refuses_nan():
    with pytest.raises(InputError, match="finite"):
        RankOrder()(torch.tensor([[float("nan")]]))


@pytest.mark.parametrize("cls", [Population, GaussianTuning])
@pytest.mark.parametrize("wrong", [{"low": -math.inf}, {"high": math.inf}])
def test_fields_need_finite_bounds(cls, wrong):
    with pytest.raises(OptionError, match="both finite"):
        cls(**wrong)


def test_fields_without_bounds_are_refused():
    with pytest.raises(OptionError, match="std.*< inf"):
        Population(std=math.inf)
