"""Plans of fused kernels, carried out step by step with torch: what a kernel of such a plan has to compute.

`Executor` follows a plan as a printed kernel does, in a few lines without any text of a kernel. It shows that plans,
buffers, rows and missing gradients are right; a backend's own tests show that its text is.
"""

from dataclasses import dataclass

import pytest
import torch

from spikecore.backends.kit import (
    BackendCapabilities,
    ForwardPlan,
    FusedBackend,
    NormCall,
    backward_calls,
    num_rows,
    segment_length,
    sum_lanes,
)
from spikecore.dynamics import OPS, evaluate, gradient_at, reached_inputs, spike
from spikecore.nn import IF, LIF, CubaLIF, Neuron, get_state, set_state, streaming
from spikecore.registry import Blocking, Registry, use
from spikecore.testing.backend_runs import noise, outcome, weights
from spikecore.testing.compare import assert_close


class Executor(FusedBackend):
    """Follows the plans of launches."""

    capabilities = BackendCapabilities(devices=("cpu",), affine_neuron=True)

    @dataclass(frozen=True)
    class Config:
        """Nothing."""

    launches = 0

    @property
    def operators(self):
        return OPS

    def launch(self, launch):
        type(self).launches += 1
        self.now = launch
        self.lanes = launch.num_lanes
        channel = torch.arange(self.lanes) // launch.inner % launch.channels
        self.params = {}
        for param in launch.program.params:
            value = launch.tensors[f"param.{param.name}"].reshape(-1)
            self.params[f"param.{param.name}"] = value[channel] if param.per_channel else value
        if isinstance(launch.plan, ForwardPlan):
            self.forward(launch.plan)
        else:
            self.backward(launch.plan)

    def read(self, name, t=0, step=None):
        """Step t of a tensor that is read, as the plan says that it lies in memory."""
        tensor = self.now.tensors[name]
        place = self.now.places.get(name)
        distance = place.step if step is None else step
        lanes = torch.arange(self.lanes)
        if name in self.now.plan.split:
            lanes = lanes // place.width * place.row + lanes % place.width
        elif name in self.now.plan.uniform:
            lanes = lanes * 0
        whole = torch.as_strided(tensor, (tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,), 0)
        return whole[tensor.storage_offset() + t * distance + lanes].to(self.now.tensors["x"].dtype)

    def write(self, name, t, value):
        self.now.tensors[name].view(-1)[t * self.lanes : (t + 1) * self.lanes] = value

    def step(self, state, t):
        values = evaluate(self.now.program.forward, {"x": self.read("x", t), **state, **self.params})
        return values["out"], {name: values[name] * torch.ones(self.lanes, dtype=state[name].dtype) for name in state}

    def forward(self, plan):
        program, num_steps = self.now.program, self.now.num_segments * plan.segment + plan.rest
        state = {f"state.{name}": self.read(f"state.{name}") for name in program.states}
        for t in range(num_steps):
            if plan.keeps and t % plan.segment == 0:
                for name in program.states:
                    self.write(f"row.{name}", t // plan.segment, state[f"state.{name}"])
            out, state = self.step(state, t)
            self.write("out", t, out)
            for name in program.record:
                self.write(f"recorded.{name}", t, state[f"state.{name}"])
        for name in program.states:
            if plan.carries:
                self.write(f"final.{name}", 0, state[f"state.{name}"])

    def backward(self, plan):
        program = self.now.program
        self.grads = {name: self.read(f"grad.{name}") for name in plan.enters}
        sums = {param.name: 0.0 for param in program.params if param.learnable}
        cells = [(self.now.num_segments + len(plan.cells) - 1 - i, cell) for i, cell in enumerate(plan.cells)]
        if plan.steady is not None:
            cells += [(row, (plan.steady,) * plan.segment) for row in reversed(range(self.now.num_segments))]
        for row, cell in cells:
            self.cell(plan, row, cell, sums)
        for name in plan.leaves(program):
            self.write(name.replace("state.", "grad.initial."), 0, self.grads[name])
        for name, total in sums.items():
            self.write(f"sum.{name}", 0, total)

    def cell(self, plan, row, cell, sums):
        program, first = self.now.program, row * plan.segment
        if plan.has_rows:
            before = [{f"state.{name}": self.read(f"row.{name}", row, self.lanes) for name in program.states}]
        else:
            assert row == 0
            before = [{f"state.{name}": self.read(f"state.{name}") for name in program.states}]
        for t in range(first, first + len(cell) - 1):
            before.append(self.step(before[-1], t)[1])
        for offset, form in zip(reversed(range(len(cell))), cell, strict=True):
            t = first + offset
            assert set(self.grads) == set(form.carried), "a gradient is carried that the plan does not know"
            inputs = {"x": self.read("x", t), **before[offset], **self.params}
            for name in form.arriving - {"out"}:
                short = name.removeprefix("state.")
                parts = [self.grads[name]] if name in form.carried else []
                parts += [self.read(f"grad.recorded.{short}", t)] if name in plan.recorded else []
                inputs[f"grad.{name}"] = sum(parts[1:], parts[0])
            if "out" in form.arriving:
                inputs["grad.out"] = self.read("grad.out", t)
            values = evaluate(gradient_at(program, form.arriving), inputs)
            self.write("grad.x", t, values["grad.x"])
            reached = reached_inputs(program.forward, form.arriving)
            ones = torch.ones(self.lanes, dtype=torch.float64)
            self.grads = {name: values[f"grad.{name}"] * ones for name in before[0] if name in reached}
            for name in sums:
                sums[name] = sums[name] + values[f"grad.param.{name}"] * ones


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


class Forgetful(Neuron):
    """A state that does not depend on anything, and an output without it."""

    state = {"v": 0.5}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        return spike(x - params.v_threshold, params.surrogate), {"v": 0.125}


NEURONS = {
    "if": lambda **o: IF(**o),
    "lif, soft, detached": lambda **o: LIF(tau=3.0, reset="soft", detach_reset=True, v_reset=-0.1, **o),
    "lif, learned": lambda **o: LIF(tau=[2.0, 3.0, 4.0], v_threshold=0.9, learnable=("tau", "v_threshold"), **o),
    "cuba_lif": lambda **o: CubaLIF(v_threshold=[0.4, 0.5, 0.7], learnable=("v_threshold", "c_decay"), **o),
    "chain": lambda **o: Chain(v_threshold=0.5, learnable=("v_threshold",), **o),
    "swap": lambda **o: Swap(v_threshold=0.1, learnable=("v_threshold",), **o),
    "forgetful": lambda **o: Forgetful(learnable=("v_threshold",), **o),
}
PARTS = ("out", "finals", "first final", "recorded", "last recorded", "all")


@pytest.fixture(autouse=True, scope="module")
def executor():
    registry = Registry(blocking=Blocking())
    registry.register("backend", "executor", Executor)
    with use(registry):
        yield


def results(neuron, x, part):
    """Outputs, and the gradients where only some of the outputs are used."""
    given = x.clone().requires_grad_()
    neuron.record = tuple(neuron.state)
    start = {name: (v + 0.125).requires_grad_() for name, v in neuron.initial_state(x.new_zeros(x.shape[1:])).items()}
    with streaming(neuron):
        set_state(neuron, {"": start})
        out = neuron(given)
        finals, recorded = list(get_state(neuron)[""].values()), list(neuron.recorded.values())
    used = {
        "out": [out],
        "finals": finals,
        "first final": finals[:1],
        "recorded": recorded,
        "last recorded": recorded[-1:],
        "all": [out, *finals, *recorded],
    }[part]
    total = sum((output * weights(output, strided=False)).sum() for output in used)
    inputs = [given, *start.values(), *neuron.parameters()]
    gradients = [None] * len(inputs)
    if total.requires_grad:
        gradients = torch.autograd.grad(total, inputs, allow_unused=True)
    gradients = [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, gradients, strict=True)]
    return [out.detach(), [final.detach() for final in finals], [seq.detach() for seq in recorded], gradients]


@pytest.mark.parametrize("name", NEURONS)
def test_results_and_gradients_of_all_parts(name):
    fired = 0
    for steps in (1, 2, 3, 4, 5, 8, 9, 17, 26):
        x = noise(steps, 2, 3, 2, seed=steps)
        for part in PARTS:
            ours, right = (results(NEURONS[name](backend=backend), x, part) for backend in ("executor", "torch"))
            assert_close(ours, right, f"{name}, T = {steps}, {part}: [output, finals, recorded, gradients]")
            fired += int(right[0].sum())
    assert fired > 100, "it hardly fires: this proves nothing"


def test_strides_of_zero_and_missing_memory():
    for x in (
        noise(9, 1, 1).expand(9, 4, 3),
        noise(1, 4, 3, 5).expand(9, 4, 3, 5),
        noise(4, 3, 9).movedim(-1, 0),
        noise(4, 9, 3, 5).transpose(0, 1),
        noise(9, 4, 3, 10)[..., ::2],
        noise(9, 4, 3, 8)[..., 1:6],
    ):
        for options in ({}, {"tau": [2.0, 3.0, 4.0], "learnable": ("tau",), "v_threshold": 0.9}):
            ours, right = (outcome(LIF(backend=b, **options), x, strided=True) for b in ("executor", "torch"))
            assert_close(ours, right, "outcome")


def test_number_of_rows_and_calls():
    lif, swap = LIF().program(), Swap().program()
    length = segment_length(lif)
    assert length == 8
    assert [num_rows(length, steps) for steps in (0, 1, 8, 9, 16, 17)] == [0, 0, 0, 2, 2, 3]
    # One call, whose form depends on T modulo K alone.
    forms = set()
    for steps in range(9, 200):
        (call,) = backward_calls(lif, (True, False), steps, length)
        assert sum(map(len, call.cells)) + call.first * length == steps
        forms.add((call.cells, call.steady))
    assert len(forms) == length
    # Gradients that go round in circles: several calls, which follow each other without a gap.
    calls = backward_calls(swap, (False, True, False), 30, segment_length(swap))
    assert len(calls) == 4
    assert sum(len(cell) for call in calls for cell in call.cells) == 30
    assert [call.first for call in calls] == [6, 4, 2, 0]
    assert len({(call.cells, call.steady) for call in calls}) <= 3


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 7), (64, 2, 33), (129, 1, 1)])
def test_lanes_are_added_up_in_a_fixed_order(shape):
    batch, num_channels, inner = shape
    values = noise(batch * num_channels * inner)
    right = values.view(batch, num_channels, inner).sum((0, 2))
    torch.testing.assert_close(sum_lanes(values, inner, num_channels), right, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sum_lanes(values, 1, 1), values.sum()[None], rtol=1e-12, atol=1e-12)


def test_more_threads_add_up_alike():
    values = noise(200_003, dtype=torch.float32)
    threads = torch.get_num_threads()
    try:
        sums = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            sums.append(sum_lanes(values, 1, 1))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(sums[0], sums[1])
    assert torch.equal(sums[0], sums[2])


@pytest.mark.parametrize("has_affine", [True, False])
def test_norm_and_neuron_are_one_program(has_affine):
    """Statistics, outputs and all gradients of torch's batch norm and the reference, at means far from zero."""
    y = noise(11, 5, 3, 2) + torch.tensor([40.0, -3.0, 0.5], dtype=torch.float64).reshape(3, 1)
    gamma, beta = (torch.tensor(v, dtype=torch.float64) if has_affine else None for v in ([2, 2.5, 3], [0.5, 1, 0.7]))
    options = {"tau": [2.0, 3.0, 4.0], "v_threshold": 0.6, "learnable": ("tau", "v_threshold")}
    neuron = LIF(backend="torch", **options).double()
    given = [value.clone().requires_grad_() for value in (y, gamma, beta) if value is not None]
    normed = torch.nn.functional.batch_norm(
        given[0].flatten(0, 1), None, None, *(given[1:] or (None, None)), training=True, eps=0.3
    )
    out = neuron(normed.unflatten(0, (11, 5)))
    assert out.any()
    right = torch.autograd.grad((out * weights(out, strided=False)).sum(), [*given, *neuron.parameters()])
    backend, program = Executor(), neuron.program()
    backend.learn(program)
    states = [torch.zeros(5, 3, 2, dtype=torch.float64)]
    params = [parameter.detach() for parameter in neuron.parameters()]
    call = NormCall(program.key, y, gamma, beta, 0.3, states, params)
    ours, _, _, mean, var, saved = backend.norm_neuron(call, True, False)
    assert_close(ours, out.detach(), "the output")
    assert_close([mean, var], [y.mean((0, 1, 3)), y.var((0, 1, 3), correction=0)], "[mean, variance]")
    grads = (weights(out, strided=False), [None], [])
    grad_y, grad_gamma, grad_beta, firsts, sums = backend.norm_neuron_grad(call, saved, *grads, False)
    gradients = [grad_y, *(g for g in (grad_gamma, grad_beta) if g is not None), *sums]
    assert_close(gradients, list(right), "gradients")
    assert firsts == []
