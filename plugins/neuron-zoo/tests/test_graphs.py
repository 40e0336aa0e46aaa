"""What backends get: the traced graphs of every declared neuron, run in numpy, against eager torch and autograd."""

import numpy as np
import pytest
import torch
from zoo_cases import DECLARED, NUM_STEPS, REQUIRED, has_option, interpreter

from spikecore.errors import DynamicsError
from spikecore.registry import create


def by_graph(neuron, x, grad_out):
    """Spikes and gradients from the graphs alone; parameters are broadcast along axis 1 of a step."""
    program = neuron.program()
    given, shapes = {}, {}
    for param in program.params:
        value = getattr(neuron, f"param_{param.name}").detach().double().numpy()
        shapes[param.name] = value.shape
        given[f"param.{param.name}"] = value if value.ndim == 0 else value.reshape(1, -1)
    state = {name: value.numpy() for name, value in neuron.initial_state(x[0].detach()).items()}
    outs, before = [], []
    for current in x.detach().numpy():
        before.append(state)
        results = interpreter.run_graph(
            program.forward, {"x": current, **given, **{f"state.{name}": value for name, value in state.items()}}
        )
        outs.append(np.broadcast_to(results["out"], current.shape))
        state = {name: np.broadcast_to(results[f"state.{name}"], current.shape) for name in program.states}
    grads = {f"grad.state.{name}": np.zeros(x.shape[1:]) for name in program.states}
    sums = {param.name: np.zeros(shapes[param.name]) for param in program.params if param.learnable}
    grad_x = []
    for t in range(len(x) - 1, -1, -1):
        seen = {"x": x[t].detach().numpy(), **{f"state.{name}": value for name, value in before[t].items()}, **given}
        results = interpreter.run_graph(program.backward, {**seen, **grads, "grad.out": grad_out[t].numpy()})
        grads = {name: np.broadcast_to(results[name], x.shape[1:]) for name in grads}
        grad_x.append(np.broadcast_to(results["grad.x"], x.shape[1:]))
        for name, total in sums.items():
            share = np.broadcast_to(results[f"grad.param.{name}"], x.shape[1:])
            sums[name] = total + (share.sum(0) if total.ndim else share.sum())
    return np.stack(outs), np.stack(grad_x[::-1]), sums


FORMS = [
    (name, reset, detach)
    for name in DECLARED
    for reset in (("hard", "soft") if has_option(name, "reset") and name != "ilif" else (None,))
    for detach in ((False, True) if has_option(name, "detach_reset") else (None,))
]


@pytest.mark.parametrize(("name", "reset", "detach"), FORMS)
def test_the_graphs_equal_eager_values_and_gradients(name, reset, detach):
    options = dict(REQUIRED.get(name, {}))
    if reset:
        options["reset"] = reset
    if detach is not None:
        options["detach_reset"] = detach
    if has_option(name, "tau"):
        options["tau"] = [0.3, 0.6, 0.8] if "glif" in name else [1.7, 2.5, 4.0]
    if has_option(name, "learnable"):
        learnable = create("neuron", name, **REQUIRED.get(name, {})).config.learnable
        options["learnable"] = (*learnable, "tau" if has_option(name, "tau") else "v_threshold")
    neuron = create("neuron", name, backend="torch", **options).double()
    random = torch.Generator().manual_seed(3)
    x = torch.randn(NUM_STEPS, 4, 3, dtype=torch.float64, generator=random) * 2 + 0.7
    x.requires_grad_()
    weight = torch.randn(NUM_STEPS, 4, 3, dtype=torch.float64, generator=random)
    if name == "timed_glif":  # its graph sees the input after the conductance
        scale = neuron.conductances.sigmoid().detach()[:, None, None]
        beta = neuron.param_gate_beta.sigmoid().detach()
        out = super(type(neuron), neuron).forward(x * (1 - beta * (1 - scale)))
        graph_x = (x * (1 - beta * (1 - scale))).detach()
    else:
        out, graph_x = neuron(x), x
    assert out.count_nonzero() > 5
    out.backward(weight)
    outs, grad_x, sums = by_graph(neuron, graph_x, weight)
    np.testing.assert_allclose(outs, out.detach(), rtol=1e-9, atol=1e-12)
    if name != "timed_glif":
        np.testing.assert_allclose(grad_x, x.grad, rtol=1e-9, atol=1e-12)
    assert x.grad.count_nonzero() > 5
    for param, total in sums.items():
        grad = getattr(neuron, f"param_{param}").grad
        np.testing.assert_allclose(total, 0 if grad is None else grad, rtol=1e-8, atol=1e-12, err_msg=param)


def test_random_spikes_are_not_traced_and_say_so():
    neuron = create("neuron", "qif", surrogate="poisson_pass", backend="torch")
    with pytest.raises(DynamicsError, match="random numbers"):
        neuron.program()
    torch.manual_seed(0)
    first = neuron(torch.rand(6, 40))
    assert set(first.unique().tolist()) == {0.0, 1.0}
