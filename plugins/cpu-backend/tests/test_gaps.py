"""Gradients that do not arrive, and numbers that are not finite: no term is something else than zero times infinity."""

import math
from dataclasses import dataclass

import pytest
import torch
from cpu_comparison import worst
from spikecore_cpu_backend import CPUBackend

from spikecore.dynamics import floor, sign, spike
from spikecore.dynamics import round as round_
from spikecore.nn import IF, LIF, CubaLIF, Neuron, get_state, set_state, streaming
from spikecore.registry import Blocking, Registry, components, create, use

NEURONS = [entry.name for entry in components("neuron") if entry.plugin.id == "core"]
VALUES = [math.nan, math.inf, -math.inf, 1e-42, -1e-42, 3e38, -3e38, -0.0]
PARTS = ["out", "finals", "recorded", "last final", "first recorded", "out and finals"]


def keeper(way):
    class Keeper(CPUBackend):
        @dataclass(frozen=True)
        class Config(CPUBackend.Config):
            keep: str = way

    return Keeper


@pytest.fixture(autouse=True, scope="module")
def backends():
    registry = Registry(blocking=Blocking())
    for way in ("input", "distance"):
        registry.register("backend", way, keeper(way))
    with use(registry):
        yield


def gradients(neuron, x, part):
    """Name → gradient, or None, where only some of the results are used."""
    given = x.clone().requires_grad_()
    neuron.record = tuple(neuron.state)
    with streaming(neuron):
        initial = neuron.initial_state(x.new_zeros(x.shape[1:]))
        start = {name: (value + 0.125).detach().requires_grad_() for name, value in initial.items()}
        if start:
            set_state(neuron, {"": start})
        out = neuron(given)
        finals, recorded = [*(get_state(neuron)[""] or {}).values()], [*neuron.recorded.values()]
    used = {
        "out": [out],
        "finals": finals,
        "recorded": recorded,
        "last final": finals[-1:],
        "first recorded": recorded[:1],
        "out and finals": [out, *finals],
    }[part]
    used = [output for output in used if output.requires_grad]
    wanted = {"x": given, **start, **dict(neuron.named_parameters())}
    if not used:
        return dict.fromkeys(wanted)
    weights = [
        torch.linspace(0.5, 1.5, max(output.numel(), 1))[: output.numel()].reshape(output.shape) for output in used
    ]
    grads = torch.autograd.grad(used, list(wanted.values()), weights, allow_unused=True)
    return dict(zip(wanted, grads, strict=True))


def same(make, x, part="out", on="cpu", tolerance=1e-5):
    """NaN and infinities in the same places, the rest alike, and what has no gradient has none."""
    ours, right = gradients(make(on), x, part), gradients(make("torch"), x, part)
    for name in right:
        if right[name] is None or ours[name] is None:
            assert ours[name] is None, f"{name}: eager has no gradient"
            assert right[name] is None, f"{name}: only eager has a gradient"
            continue
        if name.startswith("param_") and not right[name].isfinite().all():
            # A sum of terms that reach beyond float32 is infinite or, one infinity less another, NaN.
            assert not ours[name].isfinite().all(), name
            continue
        assert torch.equal(ours[name].isnan(), right[name].isnan()), name
        assert worst(ours[name], right[name]) <= tolerance, name


def sprinkled(value, steps=5):
    """A neuron for each step at which the value comes, and ordinary ones."""
    x = torch.randn(steps, 1, 3 * steps, generator=torch.Generator().manual_seed(0)) * 1.5
    for t in range(steps):
        x[t, 0, t] = value
    return x


def test_the_list_is_not_empty():
    assert len(NEURONS) >= 6


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("name", NEURONS)
def test_special_values_of_every_neuron(name, value):
    for part in PARTS:
        same(lambda on: create("neuron", name, backend=on), sprinkled(value), part)


@pytest.mark.parametrize("on", ["input", "distance"])
@pytest.mark.parametrize("case", [{}, {"reset": "soft"}, {"detach_reset": True}, {"v_reset": -0.2}], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38], ids=str)
@pytest.mark.parametrize("make", [IF, LIF, CubaLIF])
def test_special_values_of_every_reset(make, value, case, on):
    for part in PARTS:
        same(lambda backend: make(backend=backend, **case), sprinkled(value), part, on)


class Whole(Neuron):
    """Whole numbers alone: nothing but gradients of zeros."""

    state = {"v": 0.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        h = floor(state.v * 0.5) + round_(x)
        s = spike(h - params.v_threshold, params.surrogate)
        return s, {"v": h - sign(s) * h}


@pytest.mark.parametrize("part", PARTS)
def test_gradients_of_zeros_are_there(part):
    same(lambda on: Whole(backend=on, learnable=("v_threshold",)), torch.randn(5, 2, 9) * 3, part)


@pytest.mark.parametrize("steps", [1, 2, 3, 33])
def test_a_current_of_minus_infinity_at_the_last_step(steps):
    x = torch.zeros(steps, 1, 40)
    x[-1] = -math.inf
    for options in ({}, {"learnable": ("tau",)}, {"tau": [2.0] * 40, "learnable": ("tau", "v_threshold")}):
        same(lambda on, options=options: LIF(backend=on, **options), x)
    given = x.clone().requires_grad_()
    LIF(backend="cpu")(given).sum().backward()
    assert given.grad.isfinite().all()
    assert (given.grad[-1] == 0).all()


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("part", PARTS)
def test_parameters_that_nothing_reaches_have_no_gradient(steps, part):
    x = torch.randn(steps, 2, 3, generator=torch.Generator().manual_seed(0))
    for options in (
        {"learnable": ("tau",)},
        {"tau": [2.0, 3.0, 4.0], "learnable": ("tau", "v_threshold", "v_reset")},
        {"learnable": ("v_threshold",), "reset": "soft", "detach_reset": True},
    ):
        same(lambda on, options=options: LIF(backend=on, **options), x, part)


class Chain(Neuron):
    """x → a → b → v: each step carries a gradient one state back; `seen` gets everything and gives nothing."""

    state = {"a": 0.0, "b": 0.0, "v": 0.0, "seen": 0.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        h = state.v * 0.5 + state.b
        s = spike(h - params.v_threshold, params.surrogate)
        return s, {"a": x * state.a + x, "b": state.a, "v": h - s * h, "seen": h * x}


class Swap(Neuron):
    """Two states that take each other's place."""

    state = {"a": 0.5, "b": 0.25}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        return spike(x * state.a - params.v_threshold, params.surrogate), {"a": state.b * x, "b": state.a}


@pytest.mark.parametrize("value", [0.5, math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize("make", [Chain, Swap])
def test_which_gradients_there_are_changes_from_step_to_step(make, steps, part, value):
    same(lambda on: make(backend=on, learnable=("v_threshold",)), sprinkled(value, steps), part)


def test_the_interpreter_leaves_the_same_terms_out():
    from spikecore.backends.selection import backend_named

    for make in (LIF, CubaLIF, Chain, Swap):
        neuron = make(backend="cpu", learnable=("v_threshold",))
        neuron.record = tuple(neuron.state)
        program, x = neuron.program(), sprinkled(-math.inf)
        states, params = [torch.full_like(x[0], 0.125) for _ in program.states], [torch.tensor(1.0)]
        ones, none = [torch.ones_like(x)], [None]
        for pattern in range(2 ** (1 + len(states))):
            choice = [ones if pattern >> place & 1 else none for place in range(1 + len(states))]
            grads = (
                choice[0][0],
                [None if arriving is none else x[0] * 0 + 1 for arriving in choice[1:]],
                [None] * len(states),
            )
            results = []
            for name in ("cpu", "torch"):
                backend = backend_named(name)
                backend.learn(program)
                saved = backend.run(program.key, x, states, params, True, True)[3]
                grad_x, grad_states, sums = backend.run_bwd(program.key, saved, x, states, params, *grads)
                results.append([grad_x, *grad_states, *sums])
            for ours, right in zip(*results, strict=True):
                assert torch.equal(ours.isnan(), right.isnan())
                assert worst(ours, right) <= 1e-5
