"""A sweep over numeric options compiles once, and computes what a kernel with constants computes, bit for bit."""

import hashlib
from dataclasses import replace

import pytest
import torch
from cpu_comparison import agree
from spikecore_cpu_backend import CPUBackend, compiler

from spikecore.dynamics import Graph
from spikecore.nn import IF, LIF, CubaLIF, set_backend
from spikecore.nn.surrogates import Sigmoid
from spikecore.registry import Blocking, Registry, use

X = torch.randn(9, 4, 70, generator=torch.Generator().manual_seed(4)) * 1.5


@pytest.fixture
def compilations(monkeypatch, tmp_path, compiled_once):
    """What is compiled, on a backend of its own without a cache."""
    counted = []
    real = compiler.Compiler.compile
    monkeypatch.setattr(compiler.Compiler, "compile", lambda *given: counted.append(given[1]) or real(*given))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with use(Registry(blocking=Blocking())):
        yield counted


def test_a_sweep_compiles_once(compilations):
    kinds = [{"tau": 1.3 + 0.37 * i} for i in range(8)]
    kinds += [{"tau": 3.0, "surrogate": {"name": "atan", "alpha": 1.5 + i}} for i in range(2)]
    for options in kinds:
        x = X.clone().requires_grad_()
        agree(lambda on, options=options: LIF(backend=on, **options), X)
        LIF(backend="cpu", **options)(x).sum().backward()
        assert x.grad.isfinite().all()
    # The driver, and one kernel for tau; alpha stands in another place, where the default, 2, folds to 1.
    assert len(compilations) == 3
    LIF(backend="cpu", tau=11.7).double()(X.double())
    LIF(backend="cpu", tau=12.7).double()(X.double())
    assert len(compilations) == 4


def test_neurons_of_one_kernel_do_not_share_their_numbers():
    neurons = [LIF(tau=1.3 + 0.37 * i, v_threshold=0.5 + 0.1 * i, backend="cpu") for i in range(6)]
    first = [neuron(X) for neuron in neurons]
    for index in (3, 0, 5, 1, 4, 2):
        again = neurons[index](X)
        assert torch.equal(again, first[index])
        set_backend(neurons[index], "torch")
        assert torch.equal(neurons[index](X), again)
    assert len({float(out.sum()) for out in first}) == 6
    assert all(out.any() for out in first)


def with_constants(program):
    """The same program with its numbers as constants."""
    forward, backward = (
        Graph(tuple(replace(node, slot=None) for node in graph.nodes), graph.outputs)
        for graph in (program.forward, program.backward)
    )
    key = hashlib.sha256(f"constants {program.key}".encode()).hexdigest()
    return replace(program, key=key, structure=key, numbers=(), forward=forward, backward=backward)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("keep", ["input", "distance"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: LIF(tau=3.0),
        lambda: LIF(tau=3.7, v_threshold=0.83, v_reset=-0.17),
        lambda: LIF(tau=2.9, v_threshold=0.83, reset="soft", decay_input=False, surrogate=Sigmoid(alpha=3.1)),
        lambda: IF(v_threshold=0.7, v_reset=0.3, detach_reset=True),
        lambda: CubaLIF(c_decay=0.37, v_decay=0.21),
    ],
)
def test_the_same_bits_as_with_constants(make, keep, dtype):
    backend, program = CPUBackend(keep=keep), make().program()
    assert program.numbers
    constant = with_constants(program)
    x = X.to(dtype)
    states = [torch.full(X.shape[1:], 0.125, dtype=dtype) for _ in program.states]
    weights = torch.linspace(-1, 2, x.numel(), dtype=dtype).view(x.shape)
    results = []
    for variant in (program, constant):
        assert backend.supports(variant, x.device, dtype)
        backend.learn(variant)
        out, finals, _, saved = backend.run(variant.key, x, states, [], True, True)
        grads = backend.run_bwd(variant.key, saved, x, states, [], weights, [None for _ in states], [])
        results.append([out, *finals, *saved, grads[0], *grads[1]])
    assert 0.02 < results[0][0].mean() < 0.98
    for ours, right in zip(*results, strict=True):
        assert torch.equal(ours, right)
    assert results[0][-2].abs().sum() > 0
