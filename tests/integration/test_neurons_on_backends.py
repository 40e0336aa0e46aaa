"""Neurons and surrogates of every plugin on every other plugin's backend, by the rules of `spike bench`'s gate.

Spikes equal those of eager float32 where the step is exact; with exp, tanh and their like at most one in 100 000
differs, next to the threshold; gradients are within 1e-5 on elements of equal spikes, or as close to float64 as eager
float32 is.
"""

import dataclasses
import itertools
import os

import pytest
import torch

from spikecore.bench.candidates import backends, reference
from spikecore.bench.cases import STEP, Case, Runner, elementwise_neurons, required_options
from spikecore.bench.gate import backend_gate
from spikecore.errors import OptionError
from spikecore.nn import configure_backend
from spikecore.registry import components, create, load

FULL = os.environ.get("SPIKE_FULL", "") not in ("", "0")
NEURONS = elementwise_neurons()[0]
SURROGATES = [entry.name for entry in components("surrogate")]
CANDIDATES = [candidate.name for candidate in backends()[0][1:]]
ON_CPU = {"triton": {"interpret": True}, "cupy": {"on_host": True}}
"""Backends for GPUs, with the options that run their kernels on the CPU. That is slow: every neuron once."""
if FULL:
    CANDIDATES += [name for name in ON_CPU if name not in CANDIDATES]
THROUGH_EACH_SURROGATE = ("lif", "cuba_lif", "izhikevich")
OPTIONS = [
    {"reset": reset, "detach_reset": detached} for reset, detached in itertools.product(("hard", "soft"), (False, True))
]


def has(neuron, option):
    return option in {field.name for field in dataclasses.fields(load("neuron", neuron).Config)}


def candidate(backend, options):
    def make(case, measure):
        mode = "single" if measure == STEP else "multi"
        neuron = create("neuron", case.neuron, backend=backend, step_mode=mode, **required_options(case), **options)
        first = (lambda x: x[0]) if measure == STEP else (lambda x: x)
        return Runner(neuron, tuple(neuron.parameters()), prepare=first, module=neuron)

    return dataclasses.replace(reference(), name=backend, make=make)


def fits(neuron, surrogate):
    """Does the neuron take this surrogate? Integer spikes need one that rounds."""
    try:
        create("neuron", neuron, surrogate=surrogate, **required_options(Case(neuron, (1, 1, 1))))
    except OptionError:
        return False
    return True


@pytest.fixture(autouse=True, scope="module")
def kernels_on_the_cpu():
    for name, options in ON_CPU.items():
        configure_backend(name, **options)


def agree(backend, neuron, **options):
    verdict = backend_gate(candidate(backend, options), candidate("torch", options), Case(neuron, (6, 2, 35)))
    assert verdict.ok, verdict.text


def test_there_is_enough_to_compare():
    assert len(NEURONS) >= 19
    assert {"lif", "plif", "cuba_lif", "izhikevich", "adex", "alif", "ilif", "synapse_filter", "timed_glif"} <= set(
        NEURONS
    )
    assert len(SURROGATES) >= 20
    assert "cpu" in CANDIDATES


@pytest.mark.parametrize("surrogate", SURROGATES if FULL else ["atan", "sigmoid"])
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("backend", CANDIDATES)
def test_every_neuron(backend, neuron, surrogate):
    if not has(neuron, "surrogate") or not fits(neuron, surrogate):
        if surrogate != "atan":
            pytest.skip("it has a surrogate of its own, or none: compared once")
        agree(backend, neuron)
    else:
        agree(backend, neuron, surrogate=surrogate)


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("backend", ON_CPU)
def test_every_neuron_on_kernels_for_gpus(backend, neuron):
    agree(backend, neuron)


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("neuron", THROUGH_EACH_SURROGATE)
@pytest.mark.parametrize("backend", CANDIDATES)
def test_every_surrogate(backend, neuron, surrogate):
    if getattr(load("surrogate", surrogate).capabilities, "stochastic", False):
        pytest.skip("it draws random numbers, which no backend does")
    agree(backend, neuron, surrogate=surrogate)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("neuron", [name for name in NEURONS if has(name, "reset")] if FULL else ["izhikevich", "alif"])
@pytest.mark.parametrize("backend", CANDIDATES)
def test_every_reset(backend, neuron, options):
    agree(backend, neuron, **options)


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("backend", ["torch", *CANDIDATES])
def test_izhikevich_compiles_whole(backend, compiler):
    neuron = create("neuron", "izhikevich", a=0.02, b=0.1, tau_w=20.0, backend=backend)
    x = torch.randn(3, 2, 17, generator=torch.Generator().manual_seed(0)) + 0.7
    compiled = torch.compile(neuron, fullgraph=True, backend=compiler)
    results = []
    for call in (neuron, compiled):
        leaf = x.clone().requires_grad_()
        out = call(leaf)
        out.sum().backward()
        results.append((out.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)
