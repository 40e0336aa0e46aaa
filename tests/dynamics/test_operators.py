"""The operator front, with the numpy interpreter and the graph interpreter of torch as backends.

Both run every neuron from its traced program; the plain loop under torch's own autograd says what is right.
"""

import copy
import dataclasses
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from spikecore.backends import autograd
from spikecore.backends.reference import TorchBackend
from spikecore.backends.selection import backend_named
from spikecore.dynamics import sigmoid, spike, tanh, where
from spikecore.errors import BackendError, DynamicsError, PluginUnavailable, StepError
from spikecore.interfaces.backend import Backend, BackendCapabilities, Support
from spikecore.nn import IF, LIF, Neuron, get_state, reset_state, set_backend, set_state, set_step_mode, streaming
from spikecore.registry import Blocking, Registry, components, create, load, register, use
from tests.interpreter import run_graph

NEURONS = [entry.name for entry in components("neuron") if entry.plugin.id == "core"]


class NumpyBackend(Backend):
    """Runs programs with numpy, one step after the other; saves the states before each step."""

    capabilities = BackendCapabilities(priority=7)

    def __init__(self, **options):
        super().__init__(**options)
        self.runs = 0

    def supports(self, program, device, dtype):
        wrong = dtype not in (torch.float32, torch.float64)
        return Support(not wrong, f"numpy has no {dtype}" if wrong else "")

    def saved_like(self, key, x, states):
        return [state.new_empty((x.shape[0], *state.shape)) for state in states]

    def run(self, key, x, states, params, save, carry):
        self.runs += 1
        program, given = self.program(key), self._params(key, x, params)
        state = {name: value.numpy() for name, value in zip(program.states, states, strict=True)}
        outs, history = [], []
        for current in x.numpy():
            history.append(state)
            results = run_graph(program.forward, {"x": current, **self._named(state), **given}, x.numpy().dtype.type)
            outs.append(np.broadcast_to(results["out"], current.shape))
            state = {name: np.broadcast_to(results[f"state.{name}"], current.shape) for name in state}
        after = [*history[1:], state]

        def sequence(steps, name):
            return torch.tensor(np.stack([step[name] for step in steps]), dtype=states[0].dtype)

        out = torch.tensor(np.stack(outs), dtype=x.dtype)
        finals = [torch.tensor(np.array(state[name]), dtype=states[0].dtype) for name in program.states]
        recorded = [sequence(after, name) for name in program.record]
        saved = [sequence(history, name) for name in program.states] if save else []
        return out, finals if carry else [], recorded, saved

    def run_bwd(self, key, saved, x, states, params, grad_out, grad_states, grad_recorded):
        program, given = self.program(key), self._params(key, x, params)
        grad_out = torch.zeros_like(x) if grad_out is None else grad_out
        grad_states = [torch.zeros_like(s) if g is None else g for g, s in zip(grad_states, states, strict=True)]
        grad_recorded = [saved[0] * 0 if grad is None else grad for grad in grad_recorded]
        grads = {name: grad.numpy() for name, grad in zip(program.states, grad_states, strict=True)}
        grad_x, sums = torch.empty_like(x), [torch.zeros_like(param) for param in params]
        for t in reversed(range(x.shape[0])):
            for name, grad in zip(program.record, grad_recorded, strict=True):
                grads[name] = grads[name] + grad[t].numpy()
            before = {name: sequence[t].numpy() for name, sequence in zip(program.states, saved, strict=True)}
            inputs = {"x": x[t].numpy(), **self._named(before), **given, "grad.out": grad_out[t].numpy()}
            inputs |= {f"grad.state.{name}": value for name, value in grads.items()}
            results = run_graph(program.backward, inputs, x.numpy().dtype.type)
            shape = x.shape[1:]
            grad_x[t] = torch.tensor(np.broadcast_to(results["grad.x"], shape).copy())
            grads = {name: np.broadcast_to(results[f"grad.state.{name}"], shape) for name in program.states}
            for index, param in enumerate(program.params):
                if param.learnable:
                    share = np.broadcast_to(results[f"grad.param.{param.name}"], shape)
                    axes = tuple(axis for axis in range(share.ndim) if not (param.per_channel and axis == 1))
                    sums[index] += torch.tensor(share.sum(axes))
        return grad_x, [torch.tensor(np.array(grads[name])) for name in program.states], sums

    def _named(self, state):
        return {f"state.{name}": value for name, value in state.items()}

    def _params(self, key, x, params):
        shape = [-1, *[1] * (x.dim() - 3)]
        return {
            f"param.{param.name}": value.reshape(shape).numpy() if param.per_channel else value.numpy()
            for param, value in zip(self.program(key).params, params, strict=True)
        }


class GraphBackend(TorchBackend):
    """The interpreter of core under a name of its own, since `torch` means the plain loop."""

    capabilities = BackendCapabilities(priority=3)


@pytest.fixture(scope="module", autouse=True)
def backends():
    registry = Registry(path=(), builtins=True, blocking=Blocking())
    registry.register("backend", "numpy", NumpyBackend)
    registry.register("backend", "graph", GraphBackend)
    with use(registry):
        yield


ALL = ["numpy", "graph"]


def outcome(neuron, x, **grads):
    """Output, final state, recorded sequence and all gradients of one weighted sum."""
    given = x.clone().requires_grad_()
    with streaming(neuron):
        start = {
            name: torch.full_like(value, 0.1).requires_grad_() for name, value in neuron.initial_state(x[0]).items()
        }
        set_state(neuron, {"": start})
        out = neuron(given)
        finals = get_state(neuron)[""]
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    total = (out * weights).sum() + sum((final * weights[0]).sum() for final in finals.values())
    total = total + sum((sequence * weights**2).sum() for sequence in neuron.recorded.values())
    wanted = [given, *start.values(), *neuron.parameters()]
    arrived = torch.autograd.grad(total, wanted, allow_unused=True)
    grads = [torch.zeros_like(t) if g is None else g for t, g in zip(wanted, arrived, strict=True)]
    return [out, *finals.values(), *neuron.recorded.values(), *grads]


CASES = [
    {},
    {"tau": [1.5, 2.0, 5.0], "learnable": ("tau",), "decay_input": False},
    {"c_decay": [0.2, 0.5, 1.0], "learnable": ("c_decay", "v_decay", "v_reset")},
    {"init_tau": [1.5, 2.0, 5.0], "learnable": ("v_threshold",)},
    {"decay_input": False},
    {"reset": "soft"},
    {"detach_reset": True, "v_reset": 0.2},
    {"learnable": ("v_threshold",)},
    {"v_threshold": [0.5, 0.9, 1.4], "learnable": ("v_threshold",)},
    {"v_threshold": [0.5, 0.9, 1.4]},
]


def suits(name, case):
    """Has this neuron all options of the case?"""
    options = {field.name for field in dataclasses.fields(load("neuron", name).Config)}
    return set(case) | set(case.get("learnable", ())) <= options


PAIRS = [(name, case) for name in NEURONS for case in CASES if suits(name, case)]
assert len(PAIRS) >= 25


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize(("name", "case"), PAIRS, ids=str)
def test_every_backend_agrees_with_the_loop(name, case, backend):
    def made(on):
        neuron = create("neuron", name, backend=on, **case).double()
        neuron.record = tuple(neuron.state)
        return neuron

    x = torch.randn(6, 4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 1.5
    for ours, right in zip(outcome(made(backend), x), outcome(made("torch"), x), strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-9, atol=1e-10)


def test_half_precision_computes_in_single():
    x = torch.randn(5, 2, 3, dtype=torch.bfloat16)
    out, finals = LIF(backend="graph")(x), LIF(backend="torch")(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, finals)


@pytest.mark.parametrize("backend", ALL)
def test_single_steps_equal_the_sequence(backend):
    x = torch.randn(7, 2, 3)
    single = LIF(backend=backend, step_mode="single")
    torch.testing.assert_close(torch.stack([single(current) for current in x]), LIF(backend=backend)(x))
    reset_state(single)


def test_auto_takes_the_first_that_can_and_says_why():
    neuron = LIF()
    neuron(torch.zeros(2, 3))
    assert (neuron.chosen.backend, neuron.chosen.reason) == ("numpy", "first by priority")
    neuron(torch.zeros(2, 3, dtype=torch.float16))
    assert neuron.chosen.backend == "graph"
    assert "numpy has no torch.float16" in neuron.chosen.reason
    with pytest.raises(BackendError, match=r"'numpy' cannot run LIF: numpy has no torch\.float16"):
        LIF(backend="numpy")(torch.zeros(2, 3, dtype=torch.float16))


def test_a_backend_that_cannot_work_is_passed_over_only_by_auto():
    class Absent(NumpyBackend):
        capabilities = BackendCapabilities(priority=50)

        def __init__(self):
            raise PluginUnavailable("needs an abacus", "buy one")

    registry = Registry(path=(), builtins=True, blocking=Blocking())
    with use(registry):
        register("backend", "abacus", Absent)
        neuron = LIF()
        neuron(torch.zeros(2, 3))
        assert neuron.chosen.backend == "torch"
        assert "needs an abacus" in neuron.chosen.reason
        with pytest.raises(PluginUnavailable, match="buy one"):
            LIF(backend="abacus")(torch.zeros(2, 3))


def test_auto_asks_once_for_each_program_device_and_dtype(monkeypatch):
    asked = []
    real = NumpyBackend.supports
    monkeypatch.setattr(NumpyBackend, "supports", lambda *given: asked.append(1) or real(*given))
    registry = Registry(path=(), builtins=True, blocking=Blocking())
    registry.register("backend", "numpy", NumpyBackend)
    with use(registry):
        for _ in range(3):
            LIF(tau=7.0)(torch.zeros(2, 3))
        assert len(asked) == 1
        LIF(tau=7.0)(torch.zeros(2, 3, dtype=torch.float64))
        LIF(tau=8.0)(torch.zeros(2, 3))
        assert len(asked) == 3
        registry.register("backend", "later", GraphBackend)  # another offer, another answer
        LIF(tau=7.0)(torch.zeros(2, 3))
        assert len(asked) == 4


def test_what_cannot_be_traced_runs_on_the_loop_and_says_so():
    class Branching(Neuron):
        """A step with Python control flow."""

        state = {"v": 0.0}  # noqa: RUF012

        @staticmethod
        def step(x, state, params):
            return (x if params.v_threshold > x.sum() else -x), {"v": state.v}

    neuron = Branching()
    neuron(torch.ones(2, 3))
    assert neuron.chosen.backend == "torch"
    assert "cannot be traced" in neuron.chosen.reason
    assert "test_operators.py" in neuron.chosen.reason
    with pytest.raises(DynamicsError, match=r"\.sum of a value"):
        Branching(backend="numpy")(torch.ones(2, 3))


def branches(x, state, params):
    v = state.v + x
    if v > params.v_threshold:
        v = v * 0.0
    return v, {"v": v}


def writes(x, state, params):
    x += state.v
    return x, {"v": x}


def writes_by_method(x, state, params):
    return x.mul_(2.0), {"v": state.v}


@pytest.mark.parametrize("written", [branches, writes, writes_by_method])
def test_what_would_go_wrong_on_the_loop_too_is_refused(written):
    class Wrong(Neuron):
        """Branches on a value, or changes the caller's."""

        state = {"v": 0.0}  # noqa: RUF012
        step = staticmethod(written)

    x = torch.ones(2, 1, 1)
    with pytest.raises(StepError, match=r"(?s)test_operators\.py.*(where|write|compute)"):
        Wrong()(x)
    assert torch.equal(x, torch.ones(2, 1, 1))


class Bursting(Neuron):
    """A neuron of a user: a slow current adds up after each spike; all operators here are the language's."""

    state = {"v": "v_init", "a": 0.0}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        k: float = 0.6

    @staticmethod
    def step(x, state, params):
        h = state.v + (tanh(x) - state.a - state.v) * sigmoid(params.k)
        s = spike(h - params.v_threshold, params.surrogate)
        return s, {"v": where(s > 0.5, params.v_reset, h), "a": 0.8 * state.a + 0.3 * s}


FRONT = ["torch", *ALL]
NETS = {name: load("neuron", name) for name in NEURONS} | {"user": Bursting}
assert len(NETS) >= 7


def net_of(name, backend, dtype=torch.float32):
    """A layer and a neuron that trains a parameter per channel, where it has one."""
    torch.manual_seed(1)
    names = [field.name for field in dataclasses.fields(NETS[name].Config)]
    options = {"v_threshold": [0.3, 0.5, 0.8], "learnable": ("v_threshold",)} if "v_threshold" in names else {}
    return torch.nn.Sequential(torch.nn.Linear(4, 3), NETS[name](backend=backend, **options)).to(dtype)


def gradients(net, out):
    """Of a weighted sum, for all parameters."""
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    return torch.autograd.grad((out * weights).sum(), list(net.parameters()), allow_unused=True)


@pytest.mark.parametrize("backend", ["torch", "numpy"])
@pytest.mark.parametrize("name", NETS)
def test_compiles_whole(name, backend):
    torch._dynamo.reset()
    net, x = net_of(name, backend), torch.randn(3, 2, 4) * 2
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), net(x))
    torch.testing.assert_close(compiled(x), net(x))
    torch.testing.assert_close(gradients(net, compiled(x)), gradients(net, net(x)))


@pytest.mark.parametrize("backend", ["torch", "numpy"])
@pytest.mark.parametrize("name", ["lif", "cuba_lif", "user"])
def test_compiles_whole_with_inductor(name, backend):
    torch._dynamo.reset()
    net, x = net_of(name, backend), torch.randn(3, 2, 4) * 2
    compiled = torch.compile(net, fullgraph=True)
    torch.testing.assert_close(compiled(x), net(x))
    torch.testing.assert_close(gradients(net, compiled(x)), gradients(net, net(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", FRONT)
@pytest.mark.parametrize("name", NETS)
def test_functional_transforms(name, backend):
    neuron, x = NETS[name](backend=backend), torch.randn(4, 5, 3) * 2

    def total(given):
        return (neuron(given) * torch.arange(3.0)).sum()

    whole = x.clone().requires_grad_()
    total(whole).backward()
    torch.testing.assert_close(torch.func.grad(total)(x), whole.grad)
    one_by_one = torch.func.vmap(torch.func.grad(lambda s: total(s.unsqueeze(1))), in_dims=1, out_dims=1)(x)
    torch.testing.assert_close(one_by_one, whole.grad)
    stacked = torch.randn(2, 4, 5, 3)
    torch.testing.assert_close(torch.func.vmap(neuron)(stacked), torch.stack([neuron(s) for s in stacked]))
    twice = stacked.unsqueeze(0).expand(3, -1, -1, -1, -1)
    torch.testing.assert_close(torch.func.vmap(torch.func.vmap(neuron))(twice)[1], torch.func.vmap(neuron)(stacked))


@pytest.mark.parametrize("backend", FRONT)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.filterwarnings("ignore:spikecore")
def test_the_gradient_of_a_vmap(name, backend):
    neuron, x = NETS[name](backend=backend), torch.randn(2, 4, 5, 3) * 2
    whole = x.clone().requires_grad_()
    sum((neuron(part) * 1.5).square().sum() for part in whole).backward()

    def total(given):
        return (torch.func.vmap(neuron)(given) * 1.5).square().sum()

    torch.testing.assert_close(torch.func.grad(total)(x), whole.grad)
    given = x.clone().requires_grad_()
    total(given).backward()
    torch.testing.assert_close(given.grad, whole.grad)


@pytest.mark.parametrize("backend", FRONT)
def test_vmap_over_parameters_and_their_gradient(backend):
    neuron = LIF(tau=[2.0, 3.0, 4.0], learnable=("tau",), backend=backend)
    x = torch.randn(4, 5, 3)

    def loss(tau, given):
        return torch.func.functional_call(neuron, {"param_tau": tau}, (given,)).square().sum() + (tau * 0).sum()

    taus = torch.stack([torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.5, 2.5, 5.0])])
    by_tau = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None))(taus, x)
    right = torch.stack([torch.func.grad(loss)(tau, x) for tau in taus])
    torch.testing.assert_close(by_tau, right)
    reference = LIF(tau=[2.0, 3.0, 4.0], learnable=("tau",), backend="torch")
    reference(x).square().sum().backward()
    torch.testing.assert_close(by_tau[0], reference.param_tau.grad)


@pytest.mark.parametrize("backend", FRONT)
@pytest.mark.parametrize("name", NETS)
def test_checkpointing_autocast_export_copies(name, backend):
    net, x = net_of(name, backend), torch.randn(3, 2, 4) * 2
    again = checkpoint(net, x, use_reentrant=False)
    torch.testing.assert_close(gradients(net, again), gradients(net, net(x)))
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(twin(x), net(x))
        torch.testing.assert_close(gradients(twin, twin(x)), gradients(net, net(x)))
    exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x), net(x))
    if backend != "numpy":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = net(x)
            assert out.dtype == torch.bfloat16
            torch.testing.assert_close(out, net_of(name, "torch")(x))
        assert all(grad.isfinite().all() for grad in gradients(net, out))


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("name", NETS)
def test_operators_are_sound(name, backend):
    neuron = net_of(name, backend)[1]
    neuron.record = tuple(neuron.state)
    x = torch.randn(3, 4, 3)
    neuron(x)
    key, states = neuron.program().key, [torch.zeros(4, 3) for _ in neuron.state]
    params = [value.detach() for value in neuron._tensors_for(x[0]).values()]
    torch.library.opcheck(getattr(torch.ops.spikecore, f"run_{backend}").default, (key, x, states, params, True, True))
    saved = backend_named(backend).run(key, x, states, params, True, True)[3]
    arguments = (key, saved, x, states, params, x, states, [x for _ in states])
    torch.library.opcheck(getattr(torch.ops.spikecore, f"run_bwd_{backend}").default, arguments)


def test_no_gradient_needs_no_autograd_function(monkeypatch):
    for function in (autograd._Run, autograd._PlainRun):
        monkeypatch.setattr(function, "apply", lambda *args: pytest.fail("autograd was not needed"))
    neuron = LIF(backend="numpy")
    with torch.no_grad():
        neuron(torch.zeros(2, 3, requires_grad=True))
    neuron(torch.zeros(2, 3))


def test_second_derivatives_are_refused_with_the_way_out():
    neuron = IF(backend="numpy")
    x = torch.randn(2, 3, requires_grad=True)
    (first,) = torch.autograd.grad(neuron(x).sum(), x, create_graph=True)
    with pytest.raises(BackendError, match=r"set_backend\(net, 'torch'\)"):
        first.sum().backward()
    set_backend(neuron, "torch")
    (first,) = torch.autograd.grad(neuron(x).sum(), x, create_graph=True)
    first.sum().backward()


def test_outputs_never_alias_inputs_even_without_steps():
    neuron = LIF(backend="graph", record=("v",))
    with streaming(neuron):
        state = {"v": torch.zeros(2, 3)}
        set_state(neuron, {"": state})
        assert neuron(torch.zeros(0, 2, 3)).shape == (0, 2, 3)
        assert get_state(neuron)[""]["v"].data_ptr() != state["v"].data_ptr()
    assert neuron.recorded["v"].shape == (0, 2, 3)


@pytest.mark.parametrize("grad", [False, True])
def test_a_backend_is_told_whether_the_state_goes_on(monkeypatch, grad):
    told = []
    run = GraphBackend.run
    monkeypatch.setattr(GraphBackend, "run", lambda *given: told.append(given[-2:]) or run(*given))
    neuron, x = LIF(backend="graph"), torch.rand(3, 2, 3, requires_grad=grad)
    neuron(x)
    with streaming(neuron):
        neuron(x)
    set_step_mode(neuron, "single")
    neuron(x[0])
    assert told == [(grad, False), (grad, True), (grad, True)]


def test_an_unknown_key_is_named():
    with pytest.raises(BackendError, match="knows no neuron under the key 'nothing'"):
        backend_named("graph").run("nothing", torch.zeros(1, 1), [], [], False, False)
