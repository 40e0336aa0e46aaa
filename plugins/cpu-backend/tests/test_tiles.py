"""Rows of whole tiles, of a tile and a rest, of a rest alone; stored and streamed past the caches: the same values."""

import pytest
import torch
from cpu_comparison import agree, outcome
from spikecore_cpu_backend import tuning

from spikecore.nn import LI, LIF, ParametricLIF

LANES = [1, 63, 64, 65, 128, 200, 2048 + 64, 4096 + 17]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def noise(*shape, dtype=torch.float32):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 1.5).to(dtype)


@pytest.fixture(params=[False, True], ids=["stored", "streamed"])
def streams(request, monkeypatch):
    monkeypatch.setattr(tuning, "streams", lambda *_: request.param)
    return request.param


@pytest.mark.parametrize("lanes", LANES)
def test_any_number_of_lanes(lanes, streams):
    agree(lambda on: LIF(backend=on, record=("v",), tau=3.0), noise(5, 1, lanes))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lanes", [64, 100])
def test_every_element_type(dtype, lanes, streams):
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}[dtype]
    agree(lambda on: LIF(backend=on), noise(6, 2, lanes, dtype=dtype), tolerance=tolerance)


@pytest.mark.parametrize("lanes", [3, 64, 100])
def test_sums_for_parameters_leave_the_rest_of_a_tile_out(lanes, streams):
    agree(lambda on: ParametricLIF(backend=on), noise(20, 2, lanes))


def test_what_is_kept_depends_on_the_number_of_steps(monkeypatch):
    """Long sequences, whose states do not stay in the second-level cache: u; of 16-bit input always x."""
    monkeypatch.setattr(tuning, "second_level_cache", lambda: 1 << 20)
    assert [tuning.distance_pays(4, 4, steps) for steps in (1, 128, 129, 1000)] == [False, False, True, True]
    assert [tuning.distance_pays(8, 8, steps) for steps in (64, 65)] == [False, True]
    assert not tuning.distance_pays(2, 4, 1000)


def test_results_are_streamed_where_the_sequences_of_a_call_do_not_stay_in_the_cache(monkeypatch):
    monkeypatch.setattr(tuning, "last_level_cache", lambda: 32 << 20)
    mib = [4, 5, 8, 12, 16]
    assert [tuning.streams(size << 20, tuning.INFERENCE) for size in mib] == [False, False, False, True, True]
    assert [tuning.streams(size << 20, tuning.TRAINING) for size in mib] == [False, True, True, True, True]


def test_inference_goes_through_fewer_sequences_than_training(monkeypatch):
    asked = []
    monkeypatch.setattr(tuning, "streams", lambda num_bytes, num_sequences: bool(asked.append(num_sequences)))
    x, neuron = noise(4, 1, 1 << 14), LIF(backend="cpu")
    with torch.no_grad():
        neuron(x)
    assert asked == [tuning.INFERENCE]
    neuron(x.requires_grad_()).sum().backward()
    assert asked == [tuning.INFERENCE, tuning.TRAINING, tuning.TRAINING]


@pytest.mark.parametrize("large", [False, True])
def test_gradients_are_the_same_whatever_is_kept(monkeypatch, large):
    monkeypatch.setattr(tuning, "distance_pays", lambda *_: large)
    x = noise(6, 2, 96)
    ours = outcome(LIF(backend="cpu", detach_reset=True), x)
    monkeypatch.undo()
    right = outcome(LIF(backend="torch", detach_reset=True), x)
    torch.testing.assert_close(ours["grad x"], right["grad x"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("tau", [2.0, (2.0, 3.0, 4.0, 5.0)], ids=["one value", "per channel"])
def test_long_sums_for_parameters_lose_nothing(tau):
    """Millions of terms of one sign (v stays behind a current that rises), against float64."""
    slope = torch.rand(1, 1, 4, 1024, generator=torch.Generator().manual_seed(2)) + 0.5
    x = torch.arange(1000.0).reshape(-1, 1, 1, 1) * slope
    gradients = []
    for on, dtype in (("cpu", torch.float32), ("torch", torch.float64)):
        neuron = LI(tau=tau, learnable=("tau",), backend=on).to(dtype)
        neuron(x.to(dtype)).sum(dtype=torch.float64).backward()
        gradients.append(neuron.param_tau.grad.double())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=0)
