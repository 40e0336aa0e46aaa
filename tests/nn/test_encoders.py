"""Encoders: formulas by hand, binomial statistics, seeds, decoding, refused input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikecore import create
from spikecore.errors import InputError, OptionError, ShapeError
from spikecore.nn import Delta, Direct, Encoder, Latency, Poisson
from spikecore.registry import components

ENCODERS = [Direct, Poisson, Latency, Delta]
images = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("shape", [(2,), (3, 4), (2, 1, 5, 5), (0, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8])
def test_shape_dtype_and_values(encoder, shape, dtype):
    x = torch.randint(256, shape, generator=generator()).to(torch.uint8)
    x = x if dtype == torch.uint8 else (x / 255).to(dtype)
    out = encoder(num_steps=5)(x, generator())
    assert out.shape == (5, *shape)
    assert out.dtype == (torch.float32 if dtype == torch.uint8 else dtype)
    allowed = {"Poisson": {0, 1}, "Latency": {0, 1}, "Delta": {-1, 0, 1}}
    if encoder is not Direct:
        assert set(out.unique().tolist()) <= allowed[encoder.__name__]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_uint8_is_the_value_over_255(encoder):
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 256)
    assert torch.equal(encoder(num_steps=6)(x, generator()), encoder(num_steps=6)(x / 255, generator()))


def test_registered_names_and_capabilities():
    names = {component.name for component in components("encoder") if component.plugin.id == "core"}
    assert names == {"direct", "poisson", "latency", "delta"}
    for name in names:
        encoder = create("encoder", name, num_steps=3)
        assert isinstance(encoder, Encoder)
        x = torch.rand(2, 50)
        once, again = encoder(x, generator(1)), encoder(x, generator(1))
        assert torch.equal(once, again)
        assert torch.equal(encoder(x, generator(2)), once) is not encoder.capabilities.stochastic
        is_binary = bool(((once == 0) | (once == 1)).all())
        assert is_binary or not encoder.capabilities.spiking


def test_direct_repeats_without_copying_and_passes_gradients():
    x = torch.rand(2, 3, requires_grad=True)
    out = Direct(num_steps=4)(x)
    assert out.data_ptr() == x.data_ptr()
    assert all(torch.equal(step, x) for step in out)
    out.sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 4.0))
    torch.testing.assert_close(Direct(num_steps=4).decode(out), x)


def test_direct_passes_sequences_through():
    x = torch.rand(7, 2, 3)
    assert Direct(sequences=True, num_steps=2)(x) is x


@settings(max_examples=30, deadline=None)
@given(p=st.floats(0, 1, width=32), seed=st.integers(0, 10**6))
def test_poisson_rate_is_binomial(p, seed):
    trials = 20_000
    count = Poisson(num_steps=trials)(torch.tensor([p]), generator(seed)).sum().item()
    # Hoeffding: the probability of a deviation this large is below 2e-13, whatever p.
    assert abs(count - trials * p) <= math.sqrt(trials * 15)
    if p in (0.0, 1.0):
        assert count == trials * p


def test_poisson_steps_and_places_are_independent():
    spikes = Poisson(num_steps=4000)(torch.full((8,), 0.5), generator(3))
    covariance = torch.cov(torch.cat([spikes[:-1], spikes[1:]], 1).T)
    off = covariance - torch.diag(covariance.diagonal())
    # The standard error of one covariance is 0.25 / sqrt(4000); six of them, for 120 pairs.
    assert off.abs().max() < 6 * 0.25 / math.sqrt(4000)
    assert (covariance.diagonal() - 0.25).abs().max() < 0.01


def test_poisson_keeps_small_rates_in_half_precision():
    p = 2.0**-13  # half precision has only 2**-11 between neighbours just below 1
    count = Poisson(num_steps=2**19)(torch.tensor([p], dtype=torch.float16), generator()).sum(dtype=torch.float64)
    assert abs(count - 64) < 6 * 8


@pytest.mark.parametrize("num_steps", [2, 3, 8, 50])
@pytest.mark.parametrize("curve", ["linear", "log"])
def test_latency_moment_is_the_formula(num_steps, curve):
    x = torch.linspace(0, 1, 101, dtype=torch.float64).reshape(1, -1)
    spikes = Latency(num_steps=num_steps, curve=curve)(x)
    assert (spikes.sum(0) == 1).all()
    alpha = math.exp(num_steps - 1) - 1
    for value, moment in zip(x[0].tolist(), spikes.argmax(0)[0].tolist(), strict=True):
        time = (num_steps - 1) * (1 - value) if curve == "linear" else num_steps - 1 - math.log(alpha * value + 1)
        assert abs(moment - time) <= 0.5 + 1e-9


@settings(max_examples=50, deadline=None)
@given(values=images, num_steps=st.integers(2, 200))
def test_latency_decodes_to_half_a_step(values, num_steps):
    x = torch.tensor([values], dtype=torch.float64)
    linear = Latency(num_steps=num_steps)
    assert (linear.decode(linear(x)) - x).abs().max() <= 0.5 / (num_steps - 1) + 1e-9
    log = Latency(num_steps=num_steps, curve="log")  # 200 steps would overflow e^(T - 1) in float32
    spikes = log(x.float())
    back = log.decode(spikes.double())
    assert torch.isfinite(back).all()
    assert torch.equal(log(back), spikes.double())


def test_latency_decodes_the_first_spike_and_silence():
    spikes = torch.zeros(5, 1, 2)
    spikes[1, 0, 0] = spikes[3, 0, 0] = 1
    assert Latency(num_steps=5).decode(spikes).tolist() == [[0.75, 0.0]]


def test_delta_tracks_the_input():
    t = torch.arange(200).reshape(-1, 1, 1) / 200
    x = torch.sin(2 * math.pi * t) * torch.tensor([1.0, -0.5])  # slope below 2 pi / 200 per step
    delta = Delta(threshold=0.05, sequences=True)
    spikes = delta(x)
    assert spikes.shape == x.shape
    assert ((spikes.cumsum(0) * 0.05 - x).abs() < 0.05 + 1e-6).all()
    assert (spikes == -1).any()
    torch.testing.assert_close(delta.decode(spikes[:60]), 0.05 * spikes[:60].sum(0))


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8))
def test_delta_of_a_static_value_stops_within_a_threshold(values):
    x = torch.tensor([values])
    delta = Delta(num_steps=12, threshold=0.1)
    spikes = delta(x)
    assert (delta.decode(spikes) - x).abs().max() < 0.1 + 1e-6
    assert (spikes.sum(0).abs() == spikes.abs().sum(0)).all()  # never a step back
    assert torch.equal(delta(-x), -spikes)


def test_delta_of_no_steps_is_empty():
    assert Delta(sequences=True)(torch.zeros(0, 2, 3)).shape == (0, 2, 3)


@pytest.mark.parametrize("encoder", [Poisson, Latency])
@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan, math.inf])
def test_values_out_of_range_are_refused(encoder, bad):
    with pytest.raises(InputError, match=r"from 0 to 1, got .*: rescale") as caught:
        encoder()(torch.tensor([[0.5, bad]]))
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_other_faults(encoder):
    with pytest.raises(TypeError, match=r"got torch\.int64: call \.float\(\)"):
        encoder()(torch.tensor([[1]]))
    with pytest.raises(ShapeError, match=r"\[B, \.\.\.\], got \(\)"):
        encoder()(torch.tensor(0.5))
    with pytest.raises(OptionError, match="num_steps"):
        encoder(num_steps=0)
    with pytest.raises(TypeError, match=r"decode takes .* got torch\.uint8: call \.float\(\)"):
        encoder(num_steps=4).decode(torch.zeros(4, 1, dtype=torch.uint8))
    with pytest.raises(ShapeError, match=r"\[T, B, \.\.\.\] with T"):
        encoder().decode(torch.zeros(0, 1))
    with pytest.raises(ShapeError, match="sequence"):
        Delta(sequences=True)(torch.zeros(3))
    with pytest.raises(ShapeError, match="T = 4"):
        Latency(num_steps=4).decode(torch.zeros(5, 1))
    with pytest.raises(OptionError, match="'curve' must be one of"):
        Latency(curve="cubic")
    with pytest.raises(OptionError, match=">= 2"):
        Latency(num_steps=1)


def test_delta_refuses_nan():
    with pytest.raises(InputError, match="got NaN"):
        Delta()(torch.tensor([[0.5, float("nan")]]))
