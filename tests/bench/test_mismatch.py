"""A rare spike may differ where exp and its like are called, but only next to the threshold."""

import numpy as np
import pytest
import torch

from spikecore.bench.candidates import backends
from spikecore.bench.cases import Case
from spikecore.bench.gate import backend_gate
from spikecore.bench.mismatch import first_mismatches
from spikecore.nn import LIF
from spikecore.registry import register, use
from tests.bench import toys


@pytest.fixture(autouse=True)
def registry():
    with use(toys.core_alone()) as registry:
        register("neuron", "grower", toys.Grower)
        yield registry


class OneWrong(toys.Right):
    """One spike in a large call is wrong: fewer than one in 100 000."""

    def run(self, key, x, states, params, save, carry):
        out, *rest = super().run(key, x, states, params, save, carry)
        if x.numel() > 1500:
            out[1, 2, 3] = 1 - out[1, 2, 3]
        return out, *rest


def at(ulps):
    """The number so many units in the last place above 1."""
    h = np.float32(1.0)
    for _ in range(abs(ulps)):
        h = np.nextafter(h, np.float32(np.inf if ulps > 0 else 0.0))
    return float(h)


@pytest.mark.parametrize("ulps", [-9, -2, 0, 1, 3, 4, 7, 100])
def test_distance_in_units_in_the_last_place(ulps):
    neuron = LIF(tau=2.0, decay_input=False, v_threshold=1.0, backend="torch")
    x = torch.full((3, 1, 2), 0.5)
    x[1, 0, 0] = at(ulps) - 0.25  # v = 0.5 leaks to 0.25, so this is h
    want = neuron(x)
    got = want.clone()
    got[1, 0, 0] = 1 - got[1, 0, 0]
    got[2, 0, 0] = 1 - got[2, 0, 0]  # follows from the first: not looked at
    distances = first_mismatches(neuron, x, neuron.initial_state(x[0]), got, want)
    below = ulps < 0
    assert distances.tolist() == [abs(ulps) / (2 if below else 1)]  # below 1 numbers lie twice as dense


def test_nothing_differs():
    neuron = LIF(backend="torch")
    x = torch.rand(3, 2, 4)
    assert first_mismatches(neuron, x, neuron.initial_state(x[0]), neuron(x), neuron(x)).numel() == 0


def test_a_rare_spike_far_from_the_threshold_is_a_fault():
    register("backend", "one_wrong", OneWrong)
    register("backend", "right", toys.Right)
    case = Case("grower", (4, 16, 8192))
    for name, says in (("right", ""), ("one_wrong", "ulp from the threshold")):
        reference, candidate = backends([name])[0]
        verdict = backend_gate(candidate, reference, case)
        assert verdict.ok == (not says)
        assert says in verdict.text
