"""One neuron of ours and one of another library, run on the same input and compared.

    ours = run_ours(nn.LIF(tau=3.0, record=("v",), backend="torch"), x)
    theirs = run_spikingjelly(neuron.LIFNode(tau=3.0, store_v_seq=True, step_mode="m"), x)
    assert_same(ours, theirs)

Each run also takes the gradient of Σ (a s + b v), a and b random and the same for all runs, so that both the spikes and
the potentials of every step send their gradient back.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

V_TOLERANCE, GRADIENT_TOLERANCE = 1e-6, 1e-5


@dataclass
class Run:
    """What one neuron did: spikes and potentials `[T, B, ...]`, gradients of the input and of named parameters."""

    spikes: Tensor
    v: Tensor
    gradient: Tensor
    parameters: dict[str, Tensor] = field(default_factory=dict)


def require(name: str) -> ModuleType:
    """Another library. Missing, it skips the test file; in `make check` it fails it."""
    if os.environ.get("SPIKE_PEERS"):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed here; make check installs it")


def make_input(*shape: int, low: float = -1.0, high: float = 4.0, seed: int = 0) -> Tensor:
    """Currents `[T, B, ...]`, uniform between `low` and `high`."""
    shape = shape or (24, 4, 6)
    return low + (high - low) * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def send_back(spikes: Tensor, v: Tensor, x: Tensor, parameters: dict[str, Tensor] | None = None) -> Run:
    """The run, with the gradients of Σ (a s + b v)."""
    generator = torch.Generator().manual_seed(99)
    a, b = torch.randn(spikes.shape, generator=generator), torch.randn(spikes.shape, generator=generator)
    named = parameters or {}
    gradients = torch.autograd.grad((a * spikes + b * v).sum(), [x, *named.values()])
    return Run(spikes.detach(), v.detach(), gradients[0], dict(zip(named, gradients[1:], strict=True)))


def run_ours(neuron: Any, x: Tensor, v: str = "v", parameters: Sequence[str] = ()) -> Run:
    """A neuron of ours made with `record=(v,)`, in multi-step mode; `parameters` as in `named_parameters()`."""
    x = x.clone().requires_grad_()
    spikes = neuron(x)
    named = dict(neuron.named_parameters())
    return send_back(spikes, neuron.recorded[v], x, {name: named[name] for name in parameters})


def run_spikingjelly(node: Any, x: Tensor, v: str = "v_seq", parameters: Sequence[str] = ()) -> Run:
    """A node of spikingjelly made with `step_mode="m"` and `store_v_seq=True`."""
    x = x.clone().requires_grad_()
    spikes = node(x)
    named = dict(node.named_parameters())
    return send_back(spikes, getattr(node, v), x, {name: named[name] for name in parameters})


def run_steps(
    step: Callable[[Tensor, Any], tuple[Tensor, Tensor, Any]],
    state: Any,
    x: Tensor,
    parameters: dict[str, Tensor] | None = None,
) -> Run:
    """A step of any library: `step(x[t], state) -> (spikes, v, state)`; `parameters` are those it learns."""
    x = x.clone().requires_grad_()
    spikes, potentials = [], []
    for current in x.unbind(0):
        s, v, state = step(current, state)
        spikes.append(s)
        potentials.append(v)
    return send_back(torch.stack(spikes), torch.stack(potentials), x, parameters)


def assert_same(ours: Run, theirs: Run, parameters: dict[str, str] | None = None) -> None:
    """Equal spikes, v within 1e-6, gradients within 1e-5 (of the largest one, where that is above 1).

    Args:
        parameters: our parameter → theirs, where their gradients are compared too.
    """
    rate = ours.spikes.ne(0).float().mean().item()
    assert 0.05 < rate < 0.95, f"the input makes a rate of {rate}: nothing is compared"
    assert torch.equal(ours.spikes, theirs.spikes)
    assert_near(ours.v, theirs.v, V_TOLERANCE)
    assert_near(ours.gradient, theirs.gradient, GRADIENT_TOLERANCE)
    for our_name, their_name in (parameters or {}).items():
        assert_near(ours.parameters[our_name], theirs.parameters[their_name], GRADIENT_TOLERANCE)


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Elementwise within `tolerance` times the largest value, or times 1 where all are smaller."""
    assert ours.shape == theirs.shape
    assert ours.abs().max() > 0, "all zero: nothing is compared"
    scale = max(1.0, theirs.abs().max().item())
    assert (ours - theirs).abs().max().item() <= tolerance * scale


def is_missed(ours: Run, theirs: Run) -> bool:
    """Whether `assert_same` tells the two apart: for tests that it can."""
    try:
        assert_same(ours, theirs)
    except AssertionError:
        return True
    return False
