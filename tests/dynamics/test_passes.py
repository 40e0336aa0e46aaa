"""Passes over programs: which gradients arrive when, derivatives of a step, equal expressions."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch

from spikecore.dynamics import (
    CONST,
    INPUT,
    Graph,
    Node,
    Numbering,
    Param,
    derivatives,
    detach,
    evaluate,
    exp,
    gives_spikes,
    gradient_at,
    hoist,
    hoist_uniform,
    inputs_of,
    keep_distance,
    live_nodes,
    phases,
    reached_in_pass,
    reached_inputs,
    spike,
    sqrt,
    trace,
    where,
    with_gaps,
)
from spikecore.dynamics import round as round_
from spikecore.nn import IF, LI, LIF, CubaLIF, Neuron, ParametricLIF
from spikecore.nn.surrogates import ATan


class Chain(Neuron):
    """x → a → b → v: each step carries a gradient one state back."""

    state = {"a": 0.0, "b": 0.0, "v": 0.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        h = state.v * 0.5 + state.b
        s = spike(h - params.v_threshold, params.surrogate)
        return s, {"a": x * state.a + x, "b": state.a, "v": h - s * h}


class Swap(Neuron):
    """Two states that take each other's place: what arrives never settles."""

    state = {"a": 0.5, "b": 0.25}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        return spike(x * state.a - params.v_threshold, params.surrogate), {"a": state.b * x, "b": state.a}


def step_by_step(program, arriving, steps):
    """What arrives at each step, from the last one on, by the definition."""
    count = len(program.states)
    present = {f"state.{n}" for n, there in zip(program.states, arriving[1 : 1 + count], strict=True) if there}
    always = {f"state.{n}" for n, there in zip(program.record, arriving[1 + count :], strict=True) if there}
    always |= {"out"} if arriving[0] else set()
    runs, seen = [], set()
    for _ in range(steps):
        runs.append(frozenset(present | always))
        names = reached_inputs(program.forward, runs[-1])
        seen |= {name for name in names if not name.startswith("state.")}
        present = {name for name in names if name.startswith("state.")}
    return runs, frozenset(seen | present)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("make", [LIF, CubaLIF, Chain, Swap])
def test_phases_are_what_arrives_step_by_step(make, steps):
    program = make(record=("v",) if "v" in make.state else (), learnable=("v_threshold",)).program()
    count = 1 + len(program.states) + len(program.record)
    for arriving in itertools.product((False, True), repeat=count):
        runs, seen = step_by_step(program, arriving, steps)
        segments = phases(program, arriving, steps)
        assert [phase.arriving for phase in segments for _ in range(phase.num_steps)] == runs
        assert all(one.arriving != other.arriving for one, other in itertools.pairwise(segments))
        assert reached_in_pass(program, arriving, steps) == seen


def test_phases_of_known_neurons():
    lif = LIF().program()
    assert phases(lif, (True, False), 1000) == (({"out"}, 1), ({"out", "state.v"}, 999))
    assert phases(lif, (True, True), 1000) == (({"out", "state.v"}, 1000),)
    chain = Chain().program()
    arrivals = [phase.arriving for phase in phases(chain, (True, False, False, False), 9)]
    assert arrivals == [{"out"}, {"out", "state.v", "state.b"}, {"out", "state.v", "state.b", "state.a"}]
    assert len(phases(Swap().program(), (False, True, False), 6)) == 6


class Rounds(Neuron):
    """x counts by its whole part alone."""

    state = {"v": 0.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        h = state.v * 0.5 + round_(x)
        s = spike(h - params.v_threshold, params.surrogate)
        return s, {"v": h - s * h}


def test_a_gradient_of_zeros_is_one():
    """Rounding has the derivative 0: no step computes anything for x, and x still has a gradient, as in torch."""
    program = Rounds().program()
    assert reached_inputs(program.forward, ["out"]) == {"state.v"}
    assert reached_inputs(program.forward, ["out"], through_flat=True) == {"x", "state.v"}
    assert phases(program, (True, False), 5) == (({"out"}, 1), ({"out", "state.v"}, 4))
    assert reached_in_pass(program, (True, False), 5) == {"x", "state.v"}
    assert reached_in_pass(program, (False, False), 5) == set()


def test_no_steps_have_no_phases():
    program = LIF(record=("v",)).program()
    assert phases(program, (True, True, True), 0) == ()
    assert reached_in_pass(program, (True, False, True), 0) == {"x"}  # an empty out is x; nothing is recorded
    assert reached_in_pass(program, (False, True, False), 0) == {"state.v"}


def test_a_step_that_lacks_nothing_has_the_program_s_own_gradient():
    program = LIF().program()
    assert gradient_at(program, frozenset({"out", "state.v"})) == program.backward
    assert "grad.state.v" not in gradient_at(program, frozenset({"out"})).inputs


class Curved(Neuron):
    """Products of states, a constant, a part that no gradient passes, two learnable parameters."""

    state = {"v": 0.0, "w": 0.5}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        h = state.v * exp(-state.w) + x * params.v_threshold
        s = spike(h - params.v_threshold, params.surrogate)
        return s, {"v": h * (1.0 - s) + params.v_reset * s, "w": state.w * state.v + detach(x)}


@pytest.mark.parametrize(
    "make",
    [
        lambda: LIF(tau=3.0),
        lambda: LIF(tau=2.5, detach_reset=True, reset="soft", learnable=("tau", "v_threshold")),
        lambda: IF(v_reset=0.2),
        lambda: ParametricLIF(init_tau=3.0),
        CubaLIF,
        lambda: Curved(learnable=("v_threshold", "v_reset")),
    ],
)
def test_derivatives_are_the_jacobian_of_autograd(make):
    neuron = make().double()
    program = neuron.program()
    values = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    learned = [param.name for param in program.params if param.learnable]
    names = ["x", *(f"state.{name}" for name in program.states), *(f"param.{name}" for name in learned)]
    inputs = {name: (values[i % 3] + 0.3 * i).requires_grad_() for i, name in enumerate(names)}
    params = {**neuron._constants, **{name: inputs[f"param.{name}"] for name in learned}}
    states = {name: inputs[f"state.{name}"] for name in program.states}
    out, following = neuron.step(inputs["x"], Values(states), Values(params))
    outputs = {"out": out, **{f"state.{name}": value for name, value in following.items() if name in states}}
    jacobian = evaluate(derivatives(program), {name: value.detach() for name, value in inputs.items()})
    assert len(jacobian) >= 4
    pairs = set()
    for output, value in outputs.items():
        for name, given in inputs.items():
            # A constant output, as a detached one, depends on nothing.
            flows = (
                value.requires_grad and torch.autograd.grad(value.sum(), given, retain_graph=True, allow_unused=True)[0]
            )
            if flows is False or flows is None:
                continue
            pairs.add(f"d {output}/d {name}")
            ours = torch.as_tensor(jacobian[f"d {output}/d {name}"], dtype=torch.float64).expand(7)
            torch.testing.assert_close(ours, flows, rtol=1e-12, atol=1e-14)
    assert pairs == set(jacobian)
    assert any(value.abs().max() > 0.01 for value in map(torch.as_tensor, jacobian.values()))


class Values:
    def __init__(self, values):
        vars(self).update(values)


def test_the_derivative_of_a_spike_is_its_surrogate_s():
    def step(x, state, params):
        return spike(x - 1.0, ATan(alpha=3.0)), {}

    jacobian = evaluate(derivatives(trace("Bare", step, (), {})), {"x": torch.tensor([1.0, 1.5], dtype=torch.float64)})
    expected = [1.5, 1.5 / (1 + (1.5 * math.pi * 0.5) ** 2)]
    torch.testing.assert_close(jacobian["d out/d x"], torch.tensor(expected, dtype=torch.float64))


def test_equal_expressions_have_one_number():
    numbering = Numbering()
    first, second = IF().program(), LIF(tau=4.0).program()
    ours, theirs = numbering.add_graph(first.forward), numbering.add_graph(second.forward)
    assert ours[first.forward.inputs["x"]] == theirs[second.forward.inputs["x"]]
    assert ours[first.forward.outputs["out"]] != theirs[second.forward.outputs["out"]]
    assert numbering.add_graph(first.forward) == ours
    lowered = numbering.add_graph(first.forward, lower=True)
    spikes = [i for i, node in enumerate(first.forward.nodes) if node.op == "spike"]
    assert len(spikes) == 1
    value = first.forward.nodes[spikes[0]].args[0]
    assert lowered[spikes[0]] == lowered[value]
    assert ours[spikes[0]] != ours[value]


# What is kept for the backward pass.


class Twice(Neuron):
    """Two spikes of different distances."""

    state = {"v": 0.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        v = state.v + x
        return spike(v - 1.0, params.surrogate) + spike(v - 2.0, params.surrogate), {"v": v}


class Moving(Neuron):
    """A threshold that follows a state: h is not u plus something known."""

    state = {"v": 0.0, "b": 1.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        h = state.v + x
        s = spike(h - state.b, params.surrogate)
        return s, {"v": h - s * h, "b": state.b}


class Offset(Neuron):
    """Fires by a sum: h is not u plus its second argument."""

    state = {"v": 0.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        h = state.v + x
        s = spike(h + params.v_threshold, params.surrogate)
        return s, {"v": h - s * h}


@pytest.mark.parametrize("with_missing", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: LIF(tau=3.0, v_threshold=0.7, v_reset=-0.2),
        lambda: LIF(v_threshold=0.7, learnable=("v_threshold",)),
        lambda: LIF(v_threshold=[0.5, math.inf, 0.9], learnable=("v_threshold",)),
        lambda: LIF(tau=[1.5, 2.0, 4.0], v_threshold=0.8, reset="soft"),
        lambda: IF(detach_reset=True),
    ],
)
def test_the_distance_alone_gives_the_gradient(make, with_missing):
    neuron = make().double()
    program = neuron.program()
    generator = torch.Generator().manual_seed(0)
    names = sorted({*program.forward.inputs, *program.backward.inputs})
    inputs = {name: torch.randn(4, 3, generator=generator, dtype=torch.float64) for name in names}
    inputs |= {f"param.{name}": value.detach() for name, value in neuron._tensors_for(inputs["x"]).items()}
    backward = with_gaps(program) if with_missing else program.backward
    if with_missing:
        inputs |= {"arrives.out": torch.tensor(True), "arrives.state.v": torch.tensor(True)}
    kept_forward, kept_backward = keep_distance(program, backward if with_missing else None)
    kept = torch.as_tensor(evaluate(kept_forward, inputs)["kept"])
    fixed = [f"grad.param.{param.name}" for param in program.params if not param.learnable]
    wanted = [name for name in backward.outputs if name not in fixed]
    assert not {"x", "state.v"} & {*inputs_of(kept_backward, wanted)}
    assert "kept" in inputs_of(kept_backward, wanted)
    # The outputs for fixed parameters, which no caller reads, may need x.
    ours = evaluate(Graph(kept_backward.nodes, {n: kept_backward.outputs[n] for n in wanted}), {**inputs, "kept": kept})
    expected = evaluate(backward, inputs)
    for name in wanted:
        ours_full = torch.as_tensor(ours[name], dtype=torch.float64).expand(4, 3)
        expected_full = torch.as_tensor(expected[name], dtype=torch.float64).expand(4, 3)
        usable = kept.expand(4, 3).isfinite()  # with an infinite threshold u tells nothing of h
        torch.testing.assert_close(ours_full[usable], expected_full[usable])
        assert not ours_full.isnan().any()


@pytest.mark.parametrize(
    "make",
    [
        Twice,
        Moving,
        Offset,
        LI,
        lambda: LIF(tau=3.0, v_threshold=math.inf),
        lambda: LIF(tau=3.0, learnable=("tau",)),
        lambda: Curved(),
        lambda: Swap(),
    ],
)
def test_the_distance_alone_is_not_enough(make):
    assert keep_distance(make().program()) is None


# Hoisting.


class Uneven(Neuron):
    """Values of one parameter, of two, of constants, of the input, and a truth value of a parameter."""

    state = {"v": 0.0}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        gain: float = 0.5

    @staticmethod
    def step(x, state, params):
        decay = exp(-params.gain)
        scale = decay * params.v_threshold + exp(2.0)
        kept = where(params.gain > 0.25, scale, params.v_threshold)
        v = state.v * decay + x * scale + kept
        return v - params.v_threshold, {"v": v}


class Doubling(Neuron):
    """A threshold that uses each of its values twice: followed along every path it has 2^40 operations."""

    state = {"v": 0.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        threshold = params.v_threshold
        for _ in range(40):
            threshold = threshold * 0.5 + threshold * 0.5
        h = state.v + x
        s = spike(h - threshold, params.surrogate)
        return s, {"v": h * (1 - s)}


def test_a_shared_part_of_the_threshold_is_copied_once():
    program = Doubling(v_threshold=0.75, learnable=("v_threshold",)).program()
    kept = keep_distance(program)
    assert kept is not None
    assert len(kept[1].nodes) < 10 * len(program.backward.nodes)


def uneven():
    program = Uneven(gain=0.3, v_threshold=0.7, learnable=("gain", "v_threshold")).program()
    values = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    names = {**program.forward.inputs, **program.backward.inputs}
    inputs = {name: values[place % 5, place:][:1] for place, name in enumerate(sorted(names))}
    return program, inputs


def depends_on(graph, index):
    """The inputs below a node."""
    node = graph.nodes[index]
    if node.op == INPUT:
        return {node.value}
    return set().union(*(depends_on(graph, a) for a in node.args))


def leftovers(graph, wanted, is_given):
    """Operations of a graph that depend on given inputs alone."""
    nodes = [(index, graph.nodes[index]) for index in live_nodes(graph, wanted)]
    operations = [(index, node) for index, node in nodes if node.op not in (INPUT, CONST)]
    return [node for index, node in operations if all(map(is_given, depends_on(graph, index)))]


@pytest.mark.parametrize("limit", [0, 1, 2, 100])
def test_hoisted_values_are_computed_before_and_the_rest_computes_the_same(limit):
    program, inputs = uneven()
    graphs = [program.backward, gradient_at(program, frozenset({"out"}))]
    wanted = ("grad.x", "grad.state.v", "grad.param.gain")
    before, rests = hoist(graphs, wanted, limit)
    assert all(name.startswith("param.") for name in before.inputs if name in inputs_of(before, before.outputs))
    assert list(before.outputs) == [f"derived.{place}" for place in range(len(before.outputs))]
    hoisted = [before.nodes[index] for index in before.outputs.values()]
    assert all(node.op not in (INPUT, CONST) and not node.is_bool for node in hoisted)
    assert len(hoisted) == min(limit, 2)
    derived = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in evaluate(before, inputs).items()}
    for graph, rest in zip(graphs, rests, strict=True):
        ours, expected = evaluate(rest, {**inputs, **derived}), evaluate(graph, inputs)
        for name in wanted:
            assert torch.equal(torch.as_tensor(ours[name]), torch.as_tensor(expected[name]))
    if limit == 100:
        for rest in rests:
            left = leftovers(rest, wanted, lambda name: name.startswith(("param.", "derived.")))
            assert all(node.is_bool or any(rest.nodes[a].is_bool for a in node.args) for node in left)


def test_uniform_values_are_computed_before_truth_values_too():
    program, inputs = uneven()
    wanted = ("out", "state.v")
    before, rest = hoist_uniform(program.forward, wanted, lambda name: name in ("param.gain", "param.v_threshold"))
    hoisted = [before.nodes[index] for index in before.outputs.values()]
    assert {node.op for node in hoisted} == {"exp", "add", "where"}
    assert list(before.outputs) == ["uniform.0", "uniform.1", "uniform.2"]
    uniform = evaluate(before, inputs)
    ours, expected = evaluate(rest, {**inputs, **uniform}), evaluate(program.forward, inputs)
    assert all(torch.equal(ours[name], expected[name]) for name in wanted)
    given = ("param.gain", "param.v_threshold", *before.outputs)
    assert leftovers(rest, wanted, lambda name: name in given) == []
    # A truth value on the border keeps its type.
    before, rest = hoist_uniform(program.forward, wanted, lambda name: name == "param.gain")
    assert [node.is_bool for node in (before.nodes[i] for i in before.outputs.values())].count(True) == 1
    assert [node.is_bool for node in rest.nodes if str(node.value).startswith("uniform.")].count(True) == 1


def test_nothing_is_hoisted_where_nothing_is_given():
    program, _ = uneven()
    before, rest = hoist_uniform(program.forward, ("out",), lambda name: name == "param.absent")
    assert dict(before.outputs) == {}
    assert rest.nodes == program.forward.nodes


def test_an_output_that_is_the_same_at_every_step_is_hoisted_whole():
    """In each graph by itself, and not where it is an input or a constant anyway."""

    def graph(step):
        return trace("Fixed", lambda x, state, params: (step(x, params), {}), (), {}, [Param("gain")]).forward

    steps = [lambda x, p: x, lambda x, p: exp(p.gain), lambda x, p: p.gain, lambda x, p: exp(p.gain) + x]
    before, rests = hoist([graph(step) for step in steps], ["out"], 10)
    assert [before.nodes[index].op for index in before.outputs.values()] == ["exp"]
    outs = [rest.nodes[rest.outputs["out"]] for rest in rests]
    assert [node.value for node in outs] == ["x", "derived.0", "param.gain", None]


def test_numbers_tell_an_argument_from_a_constant_of_the_same_value():
    """2 of the derivative of sqrt, and 2.0 of an option, which another program may have as 3.0."""
    program = trace("Root", lambda x, state, params: (sqrt(x) - params.level, {}), (), {"level": 2.0})
    numbering = Numbering()
    for graph in (program.forward, program.backward):
        numbering.add_graph(graph)
    twos = [node.slot for node in numbering.nodes if node.value == 2.0]
    assert sorted(twos, key=str) == [0, None]


def test_numbers_tell_zeros_of_two_signs_apart():
    def step(sign):
        return lambda x, state, params: (x * (sign * 0.0), {})

    numbering = Numbering()
    graphs = [trace("Zero", step(sign), (), {}).forward for sign in (1, -1, 1)]
    outs = [numbering.add_graph(graph)[graph.outputs["out"]] for graph in graphs]
    assert outs[0] == outs[2] != outs[1]


def graph_of(step):
    """Of a step over x and v, whose outputs are `out` and `v`."""

    class Probe(Neuron):
        state = {"v": 0.0}  # noqa: RUF012

    Probe.step = staticmethod(step)
    return Probe().program().forward


@pytest.mark.parametrize("neuron", [IF(), LIF(reset="soft"), CubaLIF(), ParametricLIF(), LIF(fires="above")])
def test_a_choice_of_0_and_1_is_spikes(neuron):
    assert gives_spikes(neuron.program().forward, "out")


@pytest.mark.parametrize(
    ("out", "is_binary"),
    [
        (lambda x, v: where(x > v, 1.0, 0.0), True),
        (lambda x, v: where(x > v, where(v > 0.5, 1.0, 0.0), 1.0), True),
        (lambda x, v: detach(where(x != x, 0.0, 1.0)), True),
        (lambda x, v: where(x > v, 1.0, 0.5), False),
        (lambda x, v: where(x > v, x, 0.0), False),
        (lambda x, v: where(x > v, 0.0, where(x > 0.0, 1.0, -1.0)), False),
        (lambda x, v: where(x > v, 1.0, 0.0) * 2.0, False),
        (lambda x, v: x * 0.0, False),
        (lambda x, v: spike(x - v, ATan(spiking=False)), False),
        (lambda x, v: spike(x - v, ATan()), True),
    ],
)
def test_which_outputs_are_spikes(out, is_binary):
    graph = graph_of(lambda x, state, params: (out(x, state.v), {"v": x}))
    assert gives_spikes(graph, "out") is is_binary
    assert not gives_spikes(graph, "state.v")


def test_a_number_that_other_programs_replace_is_no_1():
    nodes = [
        Node(INPUT, value="x"),
        Node(CONST, value=0.0),
        Node(CONST, value=1.0, slot=0),
        Node("ge", (0, 1), is_bool=True),
        Node("where", (3, 2, 1)),
    ]
    graph = Graph(tuple(nodes), {"out": 4})
    assert not gives_spikes(graph, "out")
    nodes[2] = Node(CONST, value=1.0)
    assert gives_spikes(Graph(tuple(nodes), graph.outputs), "out")
