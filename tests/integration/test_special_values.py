"""NaN, infinities, denormals and huge currents through the neurons of every plugin on every backend: as in eager."""

import math

import pytest
import torch

from spikecore.bench.candidates import backends
from spikecore.bench.cases import Case, elementwise_neurons, required_options
from spikecore.registry import create

NEURONS = elementwise_neurons()[0]
CANDIDATES = [candidate.name for candidate in backends()[0][1:]]
VALUES = [math.nan, math.inf, -math.inf, 1e-42, -1e-42, 3e38, -3e38, -0.0]
STEPS = 5


def sprinkled(value):
    """A neuron for each step at which the value comes, and ordinary ones."""
    x = torch.randn(STEPS, 1, 4 * STEPS, generator=torch.Generator().manual_seed(0)) * 1.5
    for t in range(STEPS):
        x[t, 0, t] = value
    return x


def results(name, on, x, part):
    neuron = create("neuron", name, backend=on, **required_options(Case(name, tuple(x.shape))))
    neuron.record = tuple(neuron.state)
    given = x.clone().requires_grad_()
    out = neuron(given)
    used = [value for value in ([out] if part == "out" else neuron.recorded.values()) if value.requires_grad]
    values = {"out": out.detach(), **{key: value.detach() for key, value in neuron.recorded.items()}}
    if used:
        (grad,) = torch.autograd.grad(used, given, [torch.ones_like(value) for value in used], allow_unused=True)
        values["gradient"] = torch.zeros_like(x) if grad is None else grad
    return values


def test_there_is_enough_to_compare():
    assert len(NEURONS) >= 19
    assert "cpu" in CANDIDATES


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("backend", CANDIDATES)
def test_special_values(backend, name, value):
    x = sprinkled(value)
    for part in ("out", "recorded"):
        ours, right = results(name, backend, x, part), results(name, "torch", x, part)
        assert ours.keys() == right.keys()
        for key, expected in right.items():
            assert torch.equal(ours[key].isnan(), expected.isnan()), key
            scale = expected.abs().masked_fill(~expected.isfinite(), 0).amax(0, keepdim=True)
            same = (ours[key] == expected) | expected.isnan()
            assert (same | ((ours[key] - expected).abs() <= 1e-5 * scale)).all(), key
