"""One step at a time: the short way without gradient, the long way with one; gradients that do not arrive."""

import ctypes

import pytest
import torch
from spikecore_cpu_backend import layout

from spikecore.backends.selection import backend_named
from spikecore.nn import LIF, detach_state, reset_state


def steps(num_steps=6, seed=3):
    return (torch.randn(num_steps, 2, 33, generator=torch.Generator().manual_seed(seed)) * 1.5).unbind(0)


def test_the_short_way_is_taken(monkeypatch):
    backend, steps_taken = backend_named("cpu"), []
    real = type(backend).step
    monkeypatch.setattr(type(backend), "step", lambda *given: steps_taken.append(real(*given)) or steps_taken[-1])
    monkeypatch.setattr(type(backend), "run", lambda *_: pytest.fail("a step without gradient went through `run`"))
    try:
        ours, right = LIF(backend="cpu", step_mode="single"), LIF(backend="torch", step_mode="single")
        for x in steps():
            assert torch.equal(ours(x), right(x))
        assert len(steps_taken) == 6
        assert None not in steps_taken
    finally:
        monkeypatch.undo()


@pytest.mark.parametrize("which", ["every input", "the first input alone"])
def test_single_steps_have_their_gradient(which):
    grads = []
    for on in ("cpu", "torch"):
        neuron, given = LIF(backend=on, step_mode="single"), [x.clone() for x in steps()]
        for x in given[: 1 if which == "the first input alone" else None]:
            x.requires_grad_()
        torch.stack([neuron(x) for x in given]).mul(torch.arange(1.0, 7.0)[:, None, None]).sum().backward()
        grads.append([x.grad for x in given])
        detach_state(neuron)
        reset_state(neuron)
    for ours, right in zip(*grads, strict=True):
        assert (ours is None) == (right is None)
        if ours is not None:
            torch.testing.assert_close(ours, right, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_does_not_arrive_is_one_zero():
    """Read at every element from the same place, not from the memory behind it."""
    for address, step, lanes in (layout.sequence(None, []), layout.state(None, [])):
        assert (step, lanes) == (0, 0)
        assert ctypes.string_at(address, 8) == bytes(8)
