"""Tracing: the graph computes what the step computes, its backward what autograd computes; what cannot be traced."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spikecore
from spikecore.dynamics import (
    OPS,
    Namespace,
    Param,
    atan,
    clamp,
    cos,
    detach,
    equations,
    erf,
    exp,
    floor,
    log,
    round,
    sigmoid,
    sign,
    sin,
    spike,
    sqrt,
    tanh,
    trace,
    where,
)
from spikecore.dynamics import max as largest
from spikecore.dynamics import min as smallest
from spikecore.dynamics.builder import Builder
from spikecore.dynamics.vjp import PASSES_NOTHING, RULES
from spikecore.errors import DynamicsError
from spikecore.nn import IF, LIF, ATan, Neuron, set_backend
from spikecore.registry import Blocking, Registry, components, create, load, use
from tests.interpreter import FUNCTIONS, run_graph

SURROGATES = [entry.name for entry in components("surrogate") if entry.plugin.id == "core"]
FORMS = [(name, True) for name in SURROGATES]
FORMS += [(name, False) for name in SURROGATES if load("surrogate", name).capabilities.primitive]
NEURONS = [entry.name for entry in components("neuron") if entry.plugin.id == "core"]


def test_every_operation_has_its_derivative_and_its_interpreter():
    assert set(RULES) | PASSES_NOTHING == set(OPS)
    assert not set(RULES) & PASSES_NOTHING
    assert set(FUNCTIONS) == set(OPS)


def inputs_of(program, count=64, seed=0):
    random = np.random.default_rng(seed)
    names = ["x", *(f"state.{name}" for name in program.states), *(f"param.{p.name}" for p in program.params)]
    given = {name: random.normal(size=count) * 1.5 for name in names}
    for param in program.params:
        given[f"param.{param.name}"] = np.abs(given[f"param.{param.name}"]) + 1.2
    return given


def check(step, states, constants, params=(), seed=0):
    """Graph against eager step, backward graph against autograd, both in float64."""
    program = trace("Test", step, states, constants, params)
    given = inputs_of(program, seed=seed)
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in given.items()}
    state = Namespace(**{name: tensors[f"state.{name}"] for name in states})
    values = Namespace(**{**constants, **{p.name: tensors[f"param.{p.name}"] for p in params}})
    out, following = step(tensors["x"], state, values)
    eager = {"out": out, **{f"state.{name}": following[name] for name in states}}
    results = run_graph(program.forward, given)
    for name, value in eager.items():
        np.testing.assert_allclose(np.broadcast_to(results[name], (64,)), value.detach(), rtol=1e-12, atol=1e-14)
    seeds = {f"grad.{name}": np.random.default_rng(9).normal(size=64) for name in eager}
    flowing = [(name, value) for name, value in eager.items() if value.requires_grad]
    wanted = [name.removeprefix("grad.") for name in program.backward.outputs]
    grads = torch.autograd.grad(
        [value for _, value in flowing],
        [tensors[name] for name in wanted],
        [torch.tensor(seeds[f"grad.{name}"]) for name, _ in flowing],
        allow_unused=True,
    )
    back = run_graph(program.backward, {**given, **seeds})
    for name, grad in zip(wanted, grads, strict=True):
        expected = np.zeros(64) if grad is None else grad.numpy()
        np.testing.assert_allclose(np.broadcast_to(back[f"grad.{name}"], (64,)), expected, rtol=1e-9, atol=1e-11)
    return program


def states_only(neuron):
    """The step without what it returns for `record` alone."""

    def step(x, state, params):
        out, following = neuron.step(x, state, params)
        return out, {name: following[name] for name in neuron.state}

    return step


@pytest.mark.parametrize(("surrogate", "spiking"), FORMS)
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("detach_reset", [True, False])
def test_lif_with_every_surrogate_and_reset(surrogate, reset, detach_reset, spiking):
    neuron = LIF(
        tau=3.0,
        v_reset=0.25,
        reset=reset,
        detach_reset=detach_reset,
        surrogate={"name": surrogate, "alpha": 1.7, "spiking": spiking},
    )
    check(states_only(LIF), ("v",), neuron._constants)


@pytest.mark.parametrize("name", NEURONS)
def test_every_core_neuron_with_learned_and_constant_parameters(name):
    neuron = create("neuron", name)
    constants = dict(neuron._constants)
    trained = [Param(key) for key, _ in neuron.trained.values()]
    check(states_only(neuron), tuple(neuron.state), constants, trained)
    numeric = [key for key, value in constants.items() if type(value) is float]
    params = [*trained, *(Param(key, learnable=index % 2 == 0) for index, key in enumerate(numeric))]
    program = check(
        states_only(neuron), tuple(neuron.state), {k: v for k, v in constants.items() if k not in numeric}, params
    )
    assert {key for key in program.backward.outputs if key.startswith("grad.param.")} == {
        f"grad.param.{p.name}" for p in params if p.learnable
    }


UNARY = [tanh, sigmoid, sin, cos, atan, erf, abs, lambda a: exp(a / 4), lambda a: log(a * a + 1), sign, floor, round]
UNARY += [lambda a: sqrt(abs(a) + 0.5), detach, lambda a: -a, lambda a: clamp(a, -0.7, 0.9), lambda a: a**2]
UNARY += [lambda a: spike(a, ATan()), lambda a: 1 / (a * a + 0.5), lambda a: clamp(a, max=0.4), lambda a: a**3]
BINARY = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / (b * b + 1), smallest, largest]
BINARY += [lambda a, b: where(a > b, a, b * b), lambda a, b: where((a <= b) & (b < 1), a, 0.5)]
BINARY += [lambda a, b: where(~(a >= 0) | (b != b), a * b, b), lambda a, b: clamp(a, smallest(b, 0.0), 1.0)]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)), max_size=12),
    st.integers(0, 9),
)
def test_any_composition_of_operators(plan, seed):
    def step(x, state, params):
        values = [x, state.v, params.k, state.x]
        for arity, which, first, second in plan:
            a, b = values[first % len(values)], values[second % len(values)]
            made = BINARY[which % len(BINARY)](a, b) if arity else UNARY[which % len(UNARY)](a)
            values.append(tanh(made) if len(values) % 3 == 0 else made)  # keeps numbers in range
        return values[-1] + 0.5 * x, {"v": values[-2] * 0.3 + state.v, "x": state.x - values[len(values) // 2]}

    check(step, ("v", "x"), {}, [Param("k")], seed=seed)


def test_names_cannot_clash():
    def step(x, state, params):
        return x * params.x + state.t * params.exp, {"t": state.t + params.k * exp(params.t * 0.1) + params.v}

    check(step, ("t",), {}, [Param(name) for name in ("k", "x", "t", "v", "exp")])
    check(lambda x, s, p: (x * p.self + s.self, {"self": s.self * x}), ("self",), {}, [Param("self")])


CORNERS = {
    "abs": lambda x, state, params: abs(x),
    "min": lambda x, state, params: smallest(x, state.v),
    "max": lambda x, state, params: largest(x, state.v),
    "clamp": lambda x, state, params: clamp(x, state.v, state.w),
}


@pytest.mark.parametrize("name", sorted(CORNERS))
def test_gradients_at_corners_are_those_of_torch(name):
    def step(x, state, params):
        return CORNERS[name](x, state, params), {"v": state.v, "w": state.w}

    names = ("x", "state.v", "state.w")
    given = dict(zip(names, np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=3))).T, strict=True))
    seed = np.random.default_rng(0).normal(size=27)
    tensors = {key: torch.tensor(value, requires_grad=True) for key, value in given.items()}
    out, _ = step(tensors["x"], Namespace(v=tensors["state.v"], w=tensors["state.w"]), None)
    grads = torch.autograd.grad(out, list(tensors.values()), torch.tensor(seed), materialize_grads=True)
    zeros = {"grad.state.v": np.zeros(27), "grad.state.w": np.zeros(27)}
    back = run_graph(trace("T", step, ("v", "w"), {}).backward, {**given, **zeros, "grad.out": seed})
    for key, grad in zip(names, grads, strict=True):
        np.testing.assert_array_equal(back[f"grad.{key}"], grad)


def test_equal_equations_have_equal_keys_and_others_do_not():
    def key(**options):
        return LIF(**options).program().key

    assert key() == key(tau=2.0) == key(step_mode="single")
    keys = [
        key(),
        key(tau=3.0),
        key(reset="soft"),
        key(detach_reset=True),
        key(surrogate="sigmoid"),
        key(record=("v",)),
    ]
    keys += [key(learnable=("tau",)), key(tau=[2.0, 3.0]), IF().program().key, key(surrogate=ATan(alpha=2.5))]
    assert len(set(keys)) == len(keys)
    key_before = LIF().program().key
    assert len(key_before) == 64


def test_a_graph_is_hash_consed_and_holds_live_nodes_only():
    def step(x, state, params):
        exp(x)  # dead
        return (x + state.v) * (x + state.v) + (state.v + x), {"v": state.v}

    graph = trace("T", step, ("v",), {}).forward
    assert [node.op for node in graph.nodes].count("add") == 2
    assert "exp" not in {node.op for node in graph.nodes}


def test_folding_keeps_ieee_results():
    def step(x, state, params):
        return x / 3.0 + (0.1 + 0.2) * x + (x - 0.0) * 1.0, {"v": state.v + 0.0}

    builder = Builder()
    large = builder.op("sub", builder.const(2.0**24 + 1), builder.const(2.0**24))
    assert builder.nodes[large].op == "sub"  # 1 in float64, 0 in float32
    signed = trace("T", lambda x, s, p: (x - -0.0, {"v": s.v + -0.0}), ("v",), {}).forward
    assert [node.op for node in signed.nodes].count("sub") == 1  # -0.0 - -0.0 is 0.0
    assert [node.op for node in signed.nodes].count("add") == 0

    ops = [node.op for node in trace("T", step, ("v",), {}).forward.nodes]
    assert "div" in ops  # not a product with 1/3, which differs
    assert ops.count("mul") == 1
    assert ops.count("add") == 3  # v + 0.0 stays: it turns -0.0 into 0.0


REFUSED = {
    "if": (lambda x, s, p: (x if x > 0 else -x, {"v": s.v}), r"control flow.*where\(condition"),
    "and": (lambda x, s, p: ((x > 0) and (x < 1), {"v": s.v}), "control flow"),
    "float": (lambda x, s, p: (math.exp(x), {"v": s.v}), "no number yet"),
    "torch": (lambda x, s, p: (torch.relu(x), {"v": s.v}), "unknown operator torch's 'relu'"),
    "numpy": (lambda x, s, p: (np.exp(x), {"v": s.v}), "unknown operator numpy's 'exp'.*use exp of spikecore"),
    "method": (lambda x, s, p: (x.relu(), {"v": s.v}), r"\.relu of a value"),
    "in place": (lambda x, s, p: (x.add_(1), {"v": s.v}), "in place"),
    "tensor": (lambda x, s, p: (x + torch.ones(3), {"v": s.v}), "torch.Tensor|torch's"),
    "index": (lambda x, s, p: (x[0], {"v": s.v}), "indexing"),
    "unknown parameter": (lambda x, s, p: (x * p.tua, {"v": s.v}), "did you mean 'tau'"),
    "bool out": (lambda x, s, p: (x > 0, {"v": s.v}), "truth value"),
    "no state": (lambda x, s, p: (x, {}), "no next value for 'v'"),
    "strange state": (lambda x, s, p: (x, {"v": s.v, "w": x}), "'w' is not declared"),
    "shape": (lambda x, s, p: x, r"expected \(out, "),
    "string": (lambda x, s, p: (x + "a", {"v": s.v}), "builtins.str"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_shows_the_line(name):
    step, says = REFUSED[name]
    with pytest.raises(DynamicsError, match=f"(?s){says}") as caught:
        trace("Mine", step, ("v",), {"tau": 2.0})
    if name not in ("no state", "strange state", "shape", "bool out", "string"):
        assert "test_trace.py" in str(caught.value)


def test_an_in_place_sum_is_refused_because_tensors_would_change():
    def step(x, state, params):
        v = state.v
        v += x
        return v, {"v": v}

    with pytest.raises(DynamicsError, match=r"write v = v \+ x"):
        trace("Mine", step, ("v",), {})


def test_state_and_parameters_cannot_be_written():
    def step(x, state, params):
        state.v = x
        return x, {"v": x}

    with pytest.raises(DynamicsError, match="a step is pure"):
        trace("Mine", step, ("v",), {})


class Unused(Neuron):
    """A neuron with a parameter that does nothing."""

    state = {"v": 0.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        return spike(x - params.v_threshold, params.surrogate), {"v": state.v * 0.5}


def test_gradients_that_are_zero_are_there():
    outputs = Unused(learnable=("v_reset",)).program().backward
    gradients = run_graph(outputs, dict.fromkeys(outputs.inputs, np.ones(3)))
    assert gradients["grad.param.v_reset"] == 0
    assert set(gradients) == {"grad.x", "grad.state.v", "grad.param.v_reset"}


def test_equations_read_like_the_docstring():
    lines = equations(LIF(tau=3.0, surrogate="sigmoid").program().forward)
    assert lines[0] == "t1 = v + (x - v) / 3"
    assert "spike(t1 - 1)" in lines[1]
    assert lines[-1].startswith("v' = ")


def test_explain_follows_a_change_of_backend():
    net = torch.nn.Sequential(LIF())
    net(torch.ones(2, 1))
    assert "asked for" not in spikecore.explain(net)
    set_backend(net, "torch")
    assert "LIF on torch: asked for" in spikecore.explain(net)


def test_explain_a_net():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), LIF(), IF(backend="torch"))
    with use(Registry(path=(), builtins=True, blocking=Blocking())):
        text = spikecore.explain(net)
    assert "1: LIF" in text
    assert "torch: no other backend is installed" in text
    assert "2: IF" in text
    assert "asked for" in text
    assert "d.x = " in text
