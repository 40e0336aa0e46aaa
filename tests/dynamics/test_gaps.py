"""Backward graphs of steps at which gradients may be missing."""

import itertools
import math

import torch

from spikecore.dynamics import evaluate, reached_inputs, with_gaps
from spikecore.dynamics.vjp import vjp
from spikecore.nn import LIF, CubaLIF, get_state, streaming

NAMES = ["x", "state.current", "state.v"]


def given(program, x):
    states = {f"state.{name}": torch.full_like(x, 0.3) for name in program.states}
    grads = {f"grad.{name}": torch.full_like(x, 0.7) for name in program.forward.outputs}
    return {"x": x, **states, **grads}


def test_left_out_terms_are_those_of_a_pass_without_them():
    program = CubaLIF(detach_reset=False).program()
    inputs = given(program, torch.tensor([0.2, 1.5, -math.inf, math.inf, math.nan]))
    graph, seeds = with_gaps(program), list(program.forward.outputs)
    for present in itertools.product((False, True), repeat=len(seeds)):
        arrives = {f"arrives.{name}": torch.tensor(is_there) for name, is_there in zip(seeds, present, strict=True)}
        used = [name for name, is_there in zip(seeds, present, strict=True) if is_there]
        gradients = evaluate(graph, {**inputs, **arrives})
        right = evaluate(vjp(program.forward, used, NAMES), inputs)
        for name in NAMES:
            expected = torch.as_tensor(right[f"grad.{name}"]).expand(5)
            torch.testing.assert_close(gradients[f"grad.{name}"].expand(5), expected, rtol=0, atol=0, equal_nan=True)


def test_where_gradients_arrive():
    forward = CubaLIF(detach_reset=False).program().forward
    assert reached_inputs(forward, ["out"]) == {"x", "state.current", "state.v"}
    assert reached_inputs(forward, ["state.current"]) == {"x", "state.current"}
    assert reached_inputs(forward, []) == set()
    detached = LIF(detach_reset=True, reset="soft", v_threshold=[0.5], learnable=("v_threshold",)).program().forward
    assert reached_inputs(detached, ["out"]) == {"x", "state.v", "param.v_threshold"}


def test_a_spike_that_nobody_asked_about_gives_no_gradient():
    x = torch.zeros(3, 1, 2)
    x[1, 0, 0] = math.nan
    x.requires_grad_()
    neuron = CubaLIF(backend="torch")
    with streaming(neuron):
        neuron(x)
        (grad,) = torch.autograd.grad(get_state(neuron)[""]["current"].sum(), x)
    torch.testing.assert_close(grad, torch.tensor([0.25, 0.5, 1.0]).reshape(3, 1, 1).expand(3, 1, 2))
