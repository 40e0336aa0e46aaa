"""State: its graph, its checks, its copies, and the functional form; on the reference and on an operator backend."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn as torch_nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from spikecore.backends.reference import TorchBackend
from spikecore.errors import StateError, StateGraphError, StateShapeError
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.nn import (
    LI,
    LIF,
    CubaLIF,
    Dropout,
    ElementwiseRecurrent,
    Linear,
    LinearRecurrent,
    Neuron,
    Stateful,
    detach_state,
    functional,
    get_state,
    reset_state,
    set_state,
    set_step_mode,
    streaming,
)
from spikecore.registry import Blocking, Registry, components, create, load, use

NEURONS = [entry.name for entry in components("neuron") if entry.plugin.id == "core"]
NEURONS = [name for name in NEURONS if load("neuron", name).state]  # relu keeps nothing


class GraphBackend(TorchBackend):
    """The interpreter of core as an operator backend."""

    capabilities = BackendCapabilities(priority=3)


@pytest.fixture(scope="module", autouse=True)
def backends():
    registry = Registry(blocking=Blocking())
    registry.register("backend", "graph", GraphBackend)
    with use(registry):
        yield


def net_of(neuron):
    torch.manual_seed(0)
    return torch_nn.Sequential(torch_nn.Linear(4, 3), neuron)


class Memory(Stateful):
    """A module of a third party: out = x + what came before."""

    step_mode = "single"

    def initial_state(self, x):
        return {"last": torch.zeros_like(x)}

    def forward(self, x):
        out = x + self.state_for(x)["last"]
        (out,) = self.keep({"last": x}, out)
        return out


MODULES = {
    "elementwise recurrent": lambda: net_of(ElementwiseRecurrent(torch_nn.Linear(3, 3))),
    "linear recurrent": lambda: net_of(LinearRecurrent(torch_nn.Sequential(LIF()), 3, 3)),
    "recurrent without input gradient": lambda: ElementwiseRecurrent(Linear(4, 4)),
    "learnable only": lambda: LIF(tau=3.0, learnable=("tau",), backend="torch"),
    "learnable only on graph": lambda: LIF(tau=3.0, learnable=("tau",), backend="graph"),
    "third party": lambda: net_of(Memory()),
    "deep": lambda: torch_nn.Sequential(net_of(LIF()), Linear(3, 3), CubaLIF(), Linear(3, 2), LI(backend="torch")),
}
for neuron in NEURONS:
    MODULES[f"{neuron} on torch"] = lambda neuron=neuron: net_of(create("neuron", neuron, backend="torch"))
    MODULES[f"{neuron} on graph"] = lambda neuron=neuron: net_of(create("neuron", neuron, backend="graph"))
assert len(MODULES) >= 19


@pytest.mark.parametrize("name", MODULES)
class TestGraphOfTheState:
    x = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(1)) * 3

    def single(self, name):
        net = MODULES[name]()
        set_step_mode(net, "single")
        return net

    def test_a_second_backward_names_both_cures(self, name):
        net = self.single(name)
        net(self.x[0]).sum().backward()
        out = net(self.x[1])
        with pytest.raises(StateGraphError, match=r"detach_state\(net\).*reset_state\(net\)"):
            out.sum().backward()

    def test_one_backward_after_all_steps_is_fine(self, name):
        net = self.single(name)
        sum(net(x).sum() for x in self.x).backward()
        assert any(p.grad is not None for p in net.parameters())

    def test_both_cures_cure(self, name):
        net = self.single(name)
        for cure in (detach_state, reset_state):
            net(self.x[0]).sum().backward()
            cure(net)
            net(self.x[1]).sum().backward()
            reset_state(net)

    def test_a_retained_graph_is_no_error(self, name):
        net = self.single(name)
        net(self.x[0]).sum().backward(retain_graph=True)
        net(self.x[1]).sum().backward()

    def test_the_same_loss_twice_keeps_torch_s_own_words(self, name):
        net = self.single(name)
        loss = net(self.x[0]).sum()
        loss.backward()
        with pytest.raises(RuntimeError, match="second time") as caught:
            loss.backward()
        assert not isinstance(caught.value, StateError)

    def test_without_gradients_nothing_is_tied(self, name):
        net = self.single(name)
        with torch.no_grad():
            for x in self.x:
                assert net(x).grad_fn is None


def test_streaming_chunks_raise_too_and_gradients_pass_the_tie_unchanged():
    net, x = net_of(LIF(tau=3.0)), torch.rand(6, 2, 4) * 3
    whole = torch.autograd.grad(net(x).sum(), net[0].weight)
    with streaming(net):
        total = net(x[:2]).sum() + net(x[2:]).sum()
        torch.testing.assert_close(torch.autograd.grad(total, net[0].weight), whole)
        out = net(x[:1])
        with pytest.raises(StateGraphError, match="LIF"):
            out.sum().backward()


def test_a_loss_on_what_was_recorded_or_on_the_state_frees_the_graph_as_well():
    for loss in (lambda lif: lif.recorded["v"].sum(), lambda lif: get_state(lif)[""]["v"].sum()):
        lif = LIF(step_mode="single", record=("v",))
        x = torch.rand(2, 3, requires_grad=True)
        lif(x * 1.0)
        loss(lif).backward()
        with pytest.raises(StateGraphError):
            lif(x * 1.0).sum().backward()


@pytest.mark.parametrize("backend", ["torch", "graph"])
@pytest.mark.parametrize("make", [LI, LIF])
def test_outputs_may_be_changed_in_place(make, backend):
    x = torch.rand(2, 3, requires_grad=True)
    neuron = make(step_mode="single", backend=backend)
    neuron(x).mul_(2.0).sum().backward()
    reset_state(neuron)
    with torch.no_grad():
        neuron(x).zero_()
        torch.testing.assert_close(get_state(neuron)[""]["v"], x.detach() / 2)


@pytest.mark.parametrize("backend", ["torch", "graph"])
def test_what_the_state_does_not_need_gets_no_gradient(backend):
    cuba = CubaLIF(step_mode="single", backend=backend)
    set_state(cuba, {"": {"v": torch.zeros(2, 3), "current": torch.zeros(2, 3, requires_grad=True)}})
    cuba(torch.zeros(2, 3))
    assert get_state(cuba)[""]["current"].requires_grad


def test_a_kept_state_in_a_transform_is_refused_with_the_way_out():
    lif = LIF(step_mode="single")
    with pytest.raises(StateError, match=r"functional\(net\)"):
        torch.func.grad(lambda x: lif(x).sum())(torch.rand(2, 3))
    assert lif(torch.rand(4, 3)).shape == (4, 3)


def test_a_recurrent_container_runs_in_transforms():
    net, x = ElementwiseRecurrent(net := torch_nn.Sequential(Linear(3, 3), LIF())), torch.rand(4, 5, 3) * 3
    one_by_one = torch.func.vmap(lambda s: net(s.unsqueeze(1)).squeeze(1), in_dims=1, out_dims=1)(x)
    torch.testing.assert_close(one_by_one, net(x))


WRONG = {
    "a name": ({"": {"u": torch.zeros(2, 3)}}, StateError, "the state of LIF is v; got u"),
    "nothing": ({"": {}}, StateError, "got nothing"),
    "a number": ({"": {"v": 0.0}}, StateError, "'v' of LIF must be a floating-point tensor, got float"),
    "integers": ({"": {"v": torch.zeros(2, 3, dtype=torch.int64)}}, StateError, "got torch.int64"),
    "half": ({"": {"v": torch.zeros(2, 3, dtype=torch.float16)}}, StateShapeError, "must be float32"),
    "a module": ({"lif": None}, StateError, r"expected the state of the modules \[''\], got that of \['lif'\]"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_state_is_refused_and_nothing_is_set(wrong):
    lif, (state, error, says) = LIF(step_mode="single"), WRONG[wrong]
    lif(torch.rand(2, 3))
    before = get_state(lif)
    with pytest.raises(error, match=says):
        set_state(lif, state)
    assert get_state(lif)[""]["v"] is before[""]["v"]


def test_states_of_one_neuron_must_be_alike():
    cuba = CubaLIF(step_mode="single")
    with pytest.raises(StateShapeError, match=r"CubaLIF must be .* alike .*\(2, 3\).*\(2, 4\)"):
        set_state(cuba, {"": {"v": torch.zeros(2, 3), "current": torch.zeros(2, 4)}})
    set_state(cuba, {"": {"v": torch.ones(2, 3), "current": torch.full((2, 3), 7.0)}})  # in any order
    assert list(get_state(cuba)[""]) == ["current", "v"]


def identity_loop(step_mode):
    return ElementwiseRecurrent(torch_nn.Identity(), step_mode=step_mode)


OTHERS = {
    "batch": (torch.zeros(3, 3), r"\(2, 3\) float32 on cpu, the input asks for \(3, 3\) float32 on cpu"),
    "dtype": (torch.zeros(2, 3, dtype=torch.float64), "asks for .* float64"),
    "device": (torch.zeros(2, 3, device="meta"), "on cpu, .* on meta"),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize(
    "make", [LIF, CubaLIF, LI, Dropout, lambda **o: ElementwiseRecurrent(torch_nn.Identity(), **o)]
)
def test_state_of_another_form_is_refused(make, other):
    module, (x, says) = make(step_mode="single"), OTHERS[other]
    module(torch.zeros(2, 3))
    module(torch.zeros(2, 3))
    with pytest.raises(StateShapeError, match=rf"{says}.*reset_state\(net\)"):
        module(x)


def test_half_precision_kinds_share_a_state():
    lif = LIF(step_mode="single")
    lif(torch.rand(2, 3).half())
    lif(torch.rand(2, 3).bfloat16())
    assert get_state(lif)[""]["v"].dtype == torch.float32


def test_no_initial_state_is_made_while_one_is_kept(monkeypatch):
    lif, x = LIF(step_mode="single"), torch.rand(2, 3)
    lif(x)
    monkeypatch.setattr(LIF, "initial_state", lambda *_: pytest.fail("not needed"))
    lif(x)
    lif(x)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_copies_in_the_middle_of_a_sequence(copied):
    net = net_of(LIF(step_mode="single", record=("v",)))
    x = torch.rand(2, 4) * 3
    net(x)
    twin = copied(net)
    assert get_state(twin)["1"]["v"].grad_fn is None
    assert get_state(net)["1"]["v"].grad_fn is not None
    torch.testing.assert_close(twin(x), net(x))
    lif = LIF()
    with streaming(lif):
        lif(x)
        other = copied(lif)
        torch.testing.assert_close(other(x), lif(x))


# The functional form.


def deep_net():
    torch.manual_seed(3)
    inner = ElementwiseRecurrent(torch_nn.Sequential(Linear(5, 5), CubaLIF()))
    return torch_nn.Sequential(torch_nn.Linear(4, 5), LIF(tau=3.0, learnable=("tau",)), inner, LI())


def params_of(net):
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


@pytest.mark.parametrize("mode", ["single", "multi"])
def test_functional_equals_the_net_and_leaves_it_alone(mode):
    net, x = deep_net(), torch.rand(6, 2, 4) * 4
    whole = net(x)
    set_step_mode(net, mode)
    step, init_state = functional(net)
    state = init_state(x[0] if mode == "single" else x)
    assert set(state) == {"1", "2", "2.module.1", "3"}
    assert set(state["2.module.1"]) == {"current", "v"}
    assert not any(value.any() for by_name in state.values() for value in by_name.values())
    outs, params = [], params_of(net)
    for chunk in x if mode == "single" else x.split([1, 3, 2]):
        before = {name: {key: value.clone() for key, value in by_name.items()} for name, by_name in state.items()}
        out, following = step(params, chunk, state)
        torch.testing.assert_close(state, before)
        state = following
        outs.append(out)
    torch.testing.assert_close(torch.stack(outs) if mode == "single" else torch.cat(outs), whole)
    assert set(get_state(net).values()) == {None}


def test_functional_is_transparent_to_gradients():
    net, x = deep_net(), torch.rand(6, 2, 4) * 4
    step, init_state = functional(net)
    state = init_state(x)

    def loss(params, x):
        out, following = step(params, x, state)
        return out.square().sum() + following["3"]["v"].sum()

    params = {name: value.detach() for name, value in params_of(net).items()}
    gradients = torch.func.grad(loss)(params, x)
    with streaming(net):
        (net(x).square().sum() + get_state(net)["3"]["v"].sum()).backward()
    torch.testing.assert_close(gradients, {name: value.grad for name, value in net.named_parameters()})
    assert gradients["1.param_tau"] != 0

    def one(sample):
        first_states = {n: {k: v[:1] for k, v in s.items()} for n, s in state.items()}
        return step(params, sample.unsqueeze(1), first_states)[0].squeeze(1)

    torch.testing.assert_close(torch.func.vmap(one, in_dims=1, out_dims=1)(x), net(x))


def test_functional_in_a_checkpoint():
    net, x = deep_net(), torch.rand(6, 2, 4) * 4
    step, init_state = functional(net)
    params, state = params_of(net), init_state(x)
    plain = torch.autograd.grad(net(x).sum(), list(net.parameters()))
    total = 0.0
    for chunk in x.split(3):
        out, state = checkpoint(step, params, chunk, state, use_reentrant=False)
        total = total + out.sum()
    torch.testing.assert_close(torch.autograd.grad(total, list(net.parameters())), plain)


class Exportable(torch_nn.Module):
    """The functional form as the module that torch.export asks for."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.step, self.init_state = functional(net)

    def forward(self, x, state):
        return self.step(params_of(self.net), x, state)


@pytest.mark.parametrize("backend", ["torch", "graph"])
def test_functional_exports_and_compiles(backend):
    net = torch_nn.Sequential(torch_nn.Linear(4, 5), LIF(step_mode="single", backend=backend))
    module, x = Exportable(net), torch.rand(3, 2, 4) * 4
    state = module.init_state(x[0])
    exported = torch.export.export(module, (x[0], state)).module()
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    ours = theirs = right = state
    for current in x:
        expected, right = module(current, right)
        for run in ("exported", "compiled"):
            with torch.no_grad() if run == "exported" else torch.enable_grad():
                if run == "exported":
                    out, ours = exported(current, ours)
                else:
                    out, theirs = compiled(current, theirs)
            torch.testing.assert_close(out, expected)
        torch.testing.assert_close(ours, right)
        torch.testing.assert_close(theirs, right)


def test_functional_faults():
    net, x = deep_net(), torch.rand(6, 2, 4)
    step, init_state = functional(net)
    params, state = params_of(net), init_state(x)
    with pytest.raises(StateError, match=r"without 0\.bias and with unknown 0\.beta.*named_buffers"):
        step({**{k: v for k, v in params.items() if k != "0.bias"}, "0.beta": x}, x, state)
    with pytest.raises(StateError, match=r"expected the state of the modules \['1', '2', '2\.module\.1', '3'\]"):
        step(params, x, {"1": state["1"]})
    with pytest.raises(StateError, match=r"no state for 3: start from init_state"):
        step(params, x, {**state, "3": None})
    with pytest.raises(StateShapeError, match="the input asks for"):
        step(params, x[:, :1], state)
    assert set(get_state(net).values()) == {None}
    assert not any(part._memory.is_explicit for part in net.modules() if isinstance(part, Stateful))


def test_functional_names_its_own_cure():
    """reset_state(net) does nothing for a state that the caller holds."""
    net, x = deep_net(), torch.rand(6, 2, 4)
    step, init_state = functional(net)
    with pytest.raises(StateShapeError, match=r"the input asks for.*init_state\(example_input\)") as caught:
        step(params_of(net), x, init_state(x[0:1, :1]))
    assert "reset_state" not in str(caught.value)
    with torch.inference_mode():
        state = init_state(x)
    with pytest.raises(StateError, match=r"inference_mode.*init_state\(example_input\)"):
        step(params_of(net), x, state)
    with torch.no_grad():
        step(params_of(net), x, state)


@pytest.mark.parametrize("backend", ["torch", "graph"])
@pytest.mark.parametrize("make", [LIF, CubaLIF, Dropout, lambda **o: ElementwiseRecurrent(torch_nn.Linear(3, 3), **o)])
def test_a_state_made_under_inference_mode_has_no_gradient(make, backend):
    options = {"backend": backend} if isinstance(make, type) and issubclass(make, Neuron) else {}
    module, x = make(step_mode="single", **options), torch.rand(2, 3)
    with torch.inference_mode():
        module(x)
        module(x)
    with torch.no_grad():
        module(x)  # it may still run on
    reset_state(module)
    with torch.inference_mode():
        module(x)
    given = x.clone().requires_grad_()
    with pytest.raises(StateError, match=r"inference_mode.*reset_state\(net\)"):
        module(given)
    reset_state(module)
    module(given).sum().backward()
    with streaming(module):
        set_step_mode(module, "multi")
        with torch.inference_mode():
            module(x[None])
        with pytest.raises(StateError, match="inference_mode"):
            module(given[None])


def test_batch_norm_does_not_count_the_example():
    net = torch_nn.Sequential(torch_nn.BatchNorm1d(4), LIF(step_mode="single"))
    functional(net)[1](torch.rand(5, 4))
    assert net[0].num_batches_tracked == 0


# State under torch.compile.


@pytest.mark.parametrize("backend", ["torch", "graph"])
def test_a_compiled_net_keeps_state(backend):
    torch._dynamo.reset()
    net, plain = LIF(step_mode="single", backend=backend), LIF(step_mode="single", backend=backend)
    compiled, x = torch.compile(net, backend="aot_eager", fullgraph=True), torch.rand(4, 2, 3) * 3
    for current in x:
        torch.testing.assert_close(compiled(current), plain(current))
    torch.testing.assert_close(get_state(net), get_state(plain))
    reset_state(net)
    torch.testing.assert_close(compiled(x[0]), LIF(step_mode="single")(x[0]))


def test_a_state_error_surfaces_through_torch_compile():
    torch._dynamo.reset()
    net = LIF(step_mode="single")
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    compiled(torch.rand(2, 3))
    with pytest.raises(Exception, match=r"(?s)the kept state 'v' of LIF.*reset_state\(net\)"):
        compiled(torch.rand(5, 3))
    assert isinstance(net, Neuron)


def test_a_state_of_a_subclass_s_own_is_kept_at_every_size():
    class Warm(LIF):
        """Starts near its threshold."""

        def initial_state(self, x):
            return {"v": torch.full_like(x, 0.75)}

    for size in (3, 1 << 16):
        x = torch.full((1, 1, size), 1.5)
        assert Warm(backend="torch")(x).all()
        assert not LIF(backend="torch")(x).any()


def test_a_large_initial_state_takes_no_memory_of_its_own_and_is_the_same():
    x = torch.rand(3, 1, 1 << 15) * 3
    neuron = LIF(backend="torch", v_reset=-0.5)
    (start,) = neuron.start_state(x[0]).values()
    assert start.shape == x[0].shape
    assert start.untyped_storage().nbytes() == 4
    assert torch.equal(neuron(x)[:, :, :100], neuron(x[:, :, :100].contiguous()))


def test_a_large_initial_state_is_made_once_where_it_stays_within_the_call():
    x = torch.rand(3, 1, 1 << 15) * 3
    neuron = LIF(backend="torch", v_reset=-0.5)
    right = neuron(x)

    def start(like=x):
        return neuron.start_state(like[0])["v"]

    assert start().data_ptr() == start().data_ptr()
    assert start(x.double()).dtype == torch.float64
    assert start(x.repeat(1, 2, 1)).shape == (2, 1 << 15)
    with torch.inference_mode():
        assert start().is_inference()
    assert not start().is_inference()
    with FakeTensorMode() as mode:
        assert start(mode.from_tensor(x)).untyped_storage().device.type == "meta"
    with streaming(neuron):
        assert start().data_ptr() != start().data_ptr()
    assert copy.deepcopy(neuron)._start is None
    assert start(x.to("meta")).is_meta
    assert torch.equal(torch.func.vmap(neuron, in_dims=1, out_dims=1)(x.reshape(3, 1, 1, -1))[:, :, 0], right)
    given = x.clone().requires_grad_()
    neuron(given).sum().backward()
    assert start().grad_fn is None
    assert torch.equal(neuron(x), right)
    learned = LIF(v_reset=0.5, learnable=("v_reset",), backend="torch")
    first = learned.start_state(x[0])["v"]
    with torch.no_grad():
        learned.param_v_reset.fill_(0.25)
    assert learned.start_state(x[0])["v"].unique().tolist() == [0.25] != first.unique().tolist()


def test_threads_with_inputs_of_other_shapes_share_a_neuron():
    neuron = LIF(backend="torch")
    shapes = [(1, 1 << 15), (2, 1 << 15), (3, 1 << 15)]

    def ask(shape):
        x = torch.empty(shape)
        return all(neuron.start_state(x)["v"].shape == shape for _ in range(10_000))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as pool:
            assert all(pool.map(ask, shapes))
    finally:
        sys.setswitchinterval(before)
