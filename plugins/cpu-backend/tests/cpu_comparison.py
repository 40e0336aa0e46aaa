"""Runs one neuron on `cpu` and on the reference, and compares all that comes out of both."""

import torch

from spikecore.dynamics import OPS
from spikecore.nn import get_state, set_state, streaming


def outcome(neuron, x, start=None, weights=None):
    """Outputs and gradients by name, for a weighted sum of everything that the neuron returns."""
    given = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with streaming(neuron):
        initial = start or {
            name: torch.full_like(value, 0.125).requires_grad_() for name, value in neuron.initial_state(x[0]).items()
        }
        initial = {name: value.detach().clone().requires_grad_() for name, value in initial.items()}
        set_state(neuron, {"": initial})
        out = neuron(given)
        finals = get_state(neuron)[""]
    if weights is None:
        weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    wide = weights.to(next(iter(finals.values())).dtype) if finals else weights
    total = (out * weights).sum().to(wide.dtype)
    for final in finals.values():
        total = total + (final * (wide[0] if len(wide) else 1)).sum()
    for sequence in neuron.recorded.values():
        total = total + (sequence * wide**2).sum()
    wanted = {"grad x": given, **{f"grad {n}": v for n, v in initial.items()}}
    wanted |= {f"grad {n}": p for n, p in neuron.named_parameters()}
    grads = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    results = {"out": out.detach(), **{n: v.detach() for n, v in finals.items()}}
    results |= {f"recorded {n}": v.detach() for n, v in neuron.recorded.items()}
    zeros = (torch.zeros_like(t) if g is None else g for t, g in zip(wanted.values(), grads, strict=True))
    return results | dict(zip(wanted, zeros, strict=True))


def worst(ours, right):
    """The largest difference, relative to the largest value; equal NaN and infinities differ by nothing."""
    ours, right = ours.double(), right.double()
    assert ours.shape == right.shape
    same = (ours == right) | (ours.isnan() & right.isnan())
    difference = torch.where(same, 0.0, (ours - right).abs())
    scale = right[right.isfinite()].abs().max() if right.isfinite().any() else torch.tensor(1.0)
    return float(difference.max() / scale.clamp(min=1e-30)) if ours.numel() else 0.0


def is_exact(neuron):
    """Does its step use only what IEEE 754 defines to the last bit?"""
    return all(OPS[node.op].exact for node in neuron.program().forward.nodes if node.op in OPS)


def agree(make, x, tolerance=1e-5, **given):
    """Assert that `make("cpu")` and `make("torch")` agree on `x`, in every bit of what an exact step gives."""
    exact = is_exact(make("cpu"))
    ours, right = outcome(make("cpu"), x, **given), outcome(make("torch"), x, **given)
    assert ours.keys() == right.keys()
    for name in right:
        assert ours[name].dtype == right[name].dtype
        if exact and not name.startswith("grad"):
            torch.testing.assert_close(ours[name], right[name], rtol=0, atol=0, equal_nan=True, msg=name)
        else:
            assert worst(ours[name], right[name]) <= tolerance, name
    return ours
