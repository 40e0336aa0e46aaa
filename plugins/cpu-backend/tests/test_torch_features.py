"""What of torch looks at a net from outside: second and forward-mode derivatives, hooks, tracers, several threads."""

import subprocess
import sys

import pytest
import torch
from torch.autograd import forward_ad
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from spikecore.errors import BackendError
from spikecore.nn import IF, LI, LIF, ParametricLIF, get_state, set_state, streaming

WAY_OUT = r"only the reference has them; call set_backend\(net, 'torch'\)"


@pytest.fixture
def x():
    return torch.randn(6, 3, 50, generator=torch.Generator().manual_seed(0)) * 1.5


@pytest.mark.parametrize("make", [IF, LIF, ParametricLIF])
def test_second_derivatives_are_refused_whatever_is_kept(make, x):
    """A penalty on the gradient, of weights before the neuron: nothing of it may be lost without a word."""
    weights = torch.eye(50, requires_grad=True)
    given = x.requires_grad_()
    out = make(backend="cpu")(given @ weights)
    (first,) = torch.autograd.grad(out.sum(), given, create_graph=True)
    with pytest.raises(BackendError, match="second derivatives .*" + WAY_OUT):
        torch.autograd.grad(out.sum() + first.square().sum(), weights, retain_graph=True)
    with pytest.raises(BackendError, match="second derivatives .*" + WAY_OUT):
        first.square().sum().backward()


def test_second_derivatives_are_refused_in_transforms(x):
    def penalty(given):
        return torch.func.grad(lambda current: LIF(backend="cpu")(current).sum())(given).square().sum()

    with pytest.raises(BackendError, match="second derivatives"):
        torch.func.grad(penalty)(x)


def test_a_graph_of_the_gradient_costs_nothing_when_nobody_asks_for_more(x):
    plain, given = x.clone().requires_grad_(), x.clone().requires_grad_()
    LIF(backend="cpu")(plain).sum().backward()
    LIF(backend="cpu")(given).sum().backward(create_graph=True)
    assert torch.equal(plain.grad, given.grad)


@pytest.mark.parametrize("make", [LI, LIF])
def test_forward_mode_is_refused(make, x):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(BackendError, match="forward-mode derivatives .*" + WAY_OUT):
            make(backend="cpu")(dual)
        with pytest.raises(BackendError, match="forward-mode"):
            make(backend="cpu", step_mode="single")(forward_ad.make_dual(x[0], x[1]))
        assert torch.equal(make(backend="cpu")(x), make(backend="torch")(x))  # no derivative is asked for
    with pytest.raises(BackendError, match="forward-mode"):
        torch.func.jvp(make(backend="cpu"), (x,), (x,))


def test_hooks_see_what_is_kept_once(x):
    long = torch.randn(200, 2, 40, requires_grad=True)
    packed = []
    with saved_tensors_hooks(lambda tensor: packed.append(tensor) or tensor, lambda tensor: tensor):
        LIF(backend="cpu")(long)
    assert 4 <= sum(tensor.nbytes for tensor in packed) / long.numel() < 4.2
    given, right = x.clone().requires_grad_(), x.clone().requires_grad_()
    with save_on_cpu():
        out = LIF(backend="cpu")(given)
    out.sum().backward()
    LIF(backend="cpu")(right).sum().backward()
    assert torch.equal(given.grad, right.grad)


def test_x_is_let_go_where_it_is_not_read_again(monkeypatch):
    import weakref

    from spikecore_cpu_backend import tuning

    monkeypatch.setattr(tuning, "second_level_cache", lambda: 1 << 20)  # u is kept of sequences that fill it
    given = torch.randn(200, 2, 40, requires_grad=True)
    current = given * 2
    seen = weakref.ref(current.untyped_storage())
    out = LIF(backend="cpu")(current)
    del current
    assert seen() is None
    out.sum().backward()
    assert given.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("make", [LI, LIF])
def test_a_traced_net_computes(make, x):
    neuron = make(backend="cpu")
    traced = torch.jit.trace(neuron, x, check_trace=False)
    other = torch.randn(6, 3, 50, generator=torch.Generator().manual_seed(1))
    assert torch.equal(traced(other), neuron(other))


def test_first_use_by_several_threads_at_once():
    code = """
import threading, torch
from spikecore.nn import LIF, IF, LI, ParametricLIF
barrier, problems = threading.Barrier(4), []
def use(make):
    try:
        barrier.wait()
        x = torch.ones(4, 2, 30, requires_grad=True)
        make()(x).sum().backward()
    except BaseException as error:
        problems.append(error)
threads = [threading.Thread(target=use, args=(make,)) for make in (LIF, IF, LI, ParametricLIF)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not problems, problems
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]


def test_first_use_inside_a_transform():
    code = """
import torch
from spikecore.nn import LIF
x = torch.ones(4, 2, 30)
inside = torch.func.grad(lambda given: LIF()(given).sum())(x)
given = x.clone().requires_grad_()
LIF()(given).sum().backward()
right = x.clone().requires_grad_()
LIF(backend="torch")(right).sum().backward()
assert torch.equal(inside, given.grad)
torch.testing.assert_close(inside, right.grad)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]


def lazily_negated(tensor):
    """The same values times -1 twice, the second time when they are read."""
    return torch.complex(tensor, -tensor).conj().imag


@pytest.mark.parametrize("make", [LIF, ParametricLIF])
def test_gradients_that_torch_negates_when_it_reads(make, x):
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    gradients = []
    for on in ("cpu", "torch"):
        neuron, given = make(backend=on, record=("v",)), x.clone().requires_grad_()
        with streaming(neuron):
            set_state(neuron, {"": {"v": lazily_negated(torch.full((3, 50), 0.25))}})
            neuron(lazily_negated(given))
            final = get_state(neuron)[""]["v"]
        (lazily_negated(neuron.recorded["v"]) * weight).sum().backward(retain_graph=True)
        (lazily_negated(final) * weight[0]).sum().backward()
        gradients.append(given.grad)
    torch.testing.assert_close(*gradients)


def test_zeros_that_torch_only_thinks_of(x):
    nothing = torch._efficientzerotensor(x.shape)
    assert torch.equal(LIF(backend="cpu")(nothing), LIF(backend="torch")(nothing))
    given = x.requires_grad_()
    out = LIF(backend="cpu", record=("v",))
    values = (out(given), out.recorded["v"])
    (gradient,) = torch.autograd.grad(values, given, (nothing, torch.ones_like(x)))
    right = LIF(backend="torch", record=("v",))
    values = (right(given), right.recorded["v"])
    torch.testing.assert_close(
        gradient, torch.autograd.grad(values, given, (torch.zeros_like(x), torch.ones_like(x)))[0]
    )
